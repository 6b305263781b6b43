package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// output is how a command prints its data: for people, or for programs. Data
// goes to the standard output and all else to the standard error. There is no
// colour in it, whatever NO_COLOR says.
type output string

// The outputs. With jsonl each element of a list is a line. With csv it is a
// row; what is no text, number or truth in it is JSON again.
const (
	outputTable output = "table"
	outputJSON  output = "json"
	outputJSONL output = "jsonl"
	outputCSV   output = "csv"
)

func outputs() []string {
	return []string{string(outputTable), string(outputJSON), string(outputJSONL), string(outputCSV)}
}

// addTo gives a command -o.
func (o *output) addTo(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVarP((*string)(o), "output", "o", string(outputTable), "table, json, jsonl or csv")
	// Only a flag that is not there is refused.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs(), cobra.ShellCompDirectiveNoFileComp))
}

func (o output) check(cmd *cobra.Command) error {
	if !slices.Contains(outputs(), string(o)) {
		return usageError{cmd, fmt.Errorf("-o is %q; it takes %s", string(o), strings.Join(outputs(), ", "))}
	}
	return nil
}

// print writes v for programs, or what table makes of it.
func (o output) print(w io.Writer, v any, table func(io.Writer)) error {
	switch o {
	case outputJSON:
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case outputJSONL:
		return printLines(w, v)
	case outputCSV:
		return printCSV(w, v)
	}
	t := tabwriter.NewWriter(harmless{w}, 0, 8, 2, ' ', 0)
	table(t)
	return t.Flush()
}

// harmless keeps what a name may carry from steering a terminal.
type harmless struct{ w io.Writer }

func (h harmless) Write(p []byte) (int, error) {
	clean := bytes.Clone(p)
	for i, b := range clean {
		if b < ' ' && b != '\n' && b != '\t' || b == 0x7f {
			clean[i] = '?'
		}
	}
	return h.w.Write(clean)
}

// documents is v as a list of JSON documents: what is no list is a list of one.
func documents(v any) ([]json.RawMessage, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	line := bytes.TrimSpace(text.Bytes())
	switch {
	case bytes.Equal(line, []byte("null")):
		return nil, nil
	case line[0] != '[':
		return []json.RawMessage{line}, nil
	}
	var list []json.RawMessage
	err := json.Unmarshal(line, &list)
	return list, err
}

func printLines(w io.Writer, v any) error {
	list, err := documents(v)
	if err != nil {
		return err
	}
	for _, document := range list {
		if _, err := fmt.Fprintf(w, "%s\n", document); err != nil {
			return err
		}
	}
	return nil
}

func printCSV(w io.Writer, v any) error {
	list, err := documents(v)
	if err != nil {
		return err
	}
	var names []string
	rows := make([]map[string]string, len(list))
	for i, document := range list {
		if rows[i], err = csvRow(document, &names); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	out := csv.NewWriter(w)
	if err := out.Write(names); err != nil {
		return err
	}
	for _, row := range rows {
		fields := make([]string, len(names))
		for i, name := range names {
			fields[i] = row[name]
		}
		if err := out.Write(fields); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// csvRow reads an object in the order of its fields, and notes the names that
// are new.
func csvRow(document json.RawMessage, names *[]string) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(document))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.Join(errors.New("this has no rows; use -o json"), err)
	}
	row := map[string]string{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		key := fmt.Sprint(name)
		if !slices.Contains(*names, key) {
			*names = append(*names, key)
		}
		row[key] = csvField(value)
	}
	return row, nil
}

// csvField keeps a spreadsheet from taking a customer's name for a formula.
func csvField(value json.RawMessage) string {
	var text string
	switch {
	case bytes.Equal(value, []byte("null")):
		return ""
	case json.Unmarshal(value, &text) != nil:
		return string(value)
	case text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])):
		return "'" + text
	}
	return text
}

// details prints names and values in two columns, without what is not there.
func details(w io.Writer, rows ...[2]string) {
	for _, row := range rows {
		if row[1] != "-" && row[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
		}
	}
}
