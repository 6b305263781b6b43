package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// manCommand writes man pages. What cobra has for it brings three modules along,
// for a page of roff.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write a man page of every command into a directory", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return manPages(args[0], cmd.Root())
		},
	}
}

func manPages(dir string, cmd *cobra.Command) error {
	if cmd.Hidden || cmd.Name() == "help" {
		return nil
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	if err := os.WriteFile(filepath.Join(dir, name+".1"), manPage(cmd, name), 0o644); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if err := manPages(dir, sub); err != nil {
			return err
		}
	}
	return nil
}

// roff is a text in which nothing is a macro.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func manPage(cmd *cobra.Command, name string) []byte {
	var b bytes.Buffer
	section := func(title, text string) {
		if text != "" {
			fmt.Fprintf(&b, ".SH %s\n%s\n", title, text)
		}
	}
	fmt.Fprintf(&b, ".TH \"%s\" 1 \"\" \"singil\" \"singil\"\n", strings.ToUpper(roff(name)))
	section("NAME", roff(name+" - "+cmd.Short))
	section("SYNOPSIS", ".B "+roff(cmd.UseLine()))
	description := cmd.Long
	if description == "" {
		description = cmd.Short + "."
	}
	// As it was written: lists and paragraphs are in it.
	section("DESCRIPTION", ".nf\n"+roff(description)+"\n.fi")
	if flags := cmd.NonInheritedFlags().FlagUsages() + cmd.InheritedFlags().FlagUsages(); flags != "" {
		section("OPTIONS", ".nf\n"+roff(flags)+".fi")
	}
	if cmd.Example != "" {
		section("EXAMPLES", ".nf\n"+roff(cmd.Example)+"\n.fi")
	}
	section("EXIT STATUS", roff(exitStatus))
	var also []string
	if cmd.HasParent() {
		also = append(also, cmd.Parent().CommandPath())
	}
	for _, sub := range cmd.Commands() {
		if !sub.Hidden && sub.Name() != "help" {
			also = append(also, sub.CommandPath())
		}
	}
	for i, path := range also {
		also[i] = fmt.Sprintf(".BR %s (1)", roff(strings.ReplaceAll(path, " ", "-")))
	}
	section("SEE ALSO", strings.Join(also, "\n"))
	return b.Bytes()
}

const exitStatus = `0 done, 1 failed, 2 the command line was wrong, 3 not found, 4 not allowed in this state, 5 partly done, ` +
	`6 the provider or the database is away, 7 wrong configuration, 130 interrupted.`
