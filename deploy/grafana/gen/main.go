// Command gen writes Singil's Grafana dashboards. What they show stands in
// billing.go and engine.go; the rules every panel keeps are in panels.go and are
// tested on the JSON that comes out.
//
//	go run . ../dashboards
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// files are the dashboards by the name of their file.
func files() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, b := range []board{billingBoard, engineBoard} {
		d, err := b.build()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.uid, err)
		}
		if out[b.uid+".json"], err = encode(d); err != nil {
			return nil, fmt.Errorf("%s: %w", b.uid, err)
		}
	}
	return out, nil
}

func encode(d dashboard.Dashboard) ([]byte, error) {
	text, err := json.MarshalIndent(d, "", "  ")
	return append(text, '\n'), err
}

func write(directory string) error {
	all, err := files()
	if err != nil {
		return err
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(directory, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
