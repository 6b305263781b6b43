package main

import (
	"fmt"
	"io"
	"iter"
	"net/url"
	"reflect"
	"runtime"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/singil/singil/migrations"
)

func versionCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version, and the schema it is written for",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			v := struct {
				Version  string              `json:"version"`
				Go       string              `json:"go"`
				Platform string              `json:"platform"`
				Schema   migrations.Versions `json:"schema"`
			}{buildVersion(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, migrations.Latest()}
			return o.print(cmd.OutOrStdout(), v, func(w io.Writer) {
				fmt.Fprintf(w, "singil %s (%s, %s; schema: %s)\n", v.Version, v.Go, v.Platform, v.Schema)
			})
		},
	}
	o.addTo(cmd)
	return cmd
}

// setting is a line of singil config.
type setting struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
}

func configCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in force, without its secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			c, err := readConfig()
			if err != nil {
				return err
			}
			all := c.settings()
			values := make(map[string]any, len(all))
			for _, s := range all {
				values[s.Name] = s.Value
			}
			return o.print(cmd.OutOrStdout(), values, func(w io.Writer) {
				for _, s := range all {
					fmt.Fprintf(w, "%s\t%v\n", s.Name, s.Value)
				}
			})
		},
	}
	o.addTo(cmd)
	return cmd
}

// settings is the configuration by its names, fit to be shown to anybody. A
// setting whose name is not known here to be harmless is shown as a secret.
func (c config) settings() []setting {
	shown := map[string]any{
		"DATABASE_URL":             harmlessDSN(c.DatabaseURL),
		"PAYMONGO_SECRET_KEY_FILE": c.SecretKeyFile,
		"PAYMONGO_BASE_URL":        harmlessURL(c.BaseURL),
		"PAYMONGO_RATE":            c.Rate,
		"SINGIL_API":               c.API,
		"SINGIL_API_DATABASE_URL":  harmlessDSN(c.APIDatabaseURL),
		"SINGIL_ENVIRONMENT":       c.Environment,
		"SINGIL_LISTEN":            c.Listen,
		"SINGIL_SCHEDULE":          c.Schedule,
		"SINGIL_TIME_ZONE":         c.TimeZone,
		"SINGIL_IN_FLIGHT":         c.InFlight,
		"SINGIL_WATCH":             c.Watch,
		"SINGIL_WITNESS":           c.Witness,
	}
	var all []setting
	for name, value := range c.byName() {
		if harmless, known := shown[name]; known {
			value = harmless
		} else if value != "" {
			value = "***"
		}
		all = append(all, setting{name, value})
	}
	return all
}

// byName is every field of the configuration by its variable, in their order.
func (c config) byName() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for field, value := range reflect.ValueOf(c).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("env"), ",")
			if name != "" && !yield(name, value.Interface()) {
				return
			}
		}
	}
}

// harmlessDSN shows where the database is.
func harmlessDSN(dsn string) string {
	if dsn == "" {
		return ""
	}
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "***"
	}
	u := url.URL{Scheme: "postgres", User: url.User(c.User), Host: fmt.Sprintf("%s:%d", c.Host, c.Port), Path: "/" + c.Database}
	if c.Password != "" {
		return "postgres://" + url.PathEscape(c.User) + ":***@" + u.Host + u.Path
	}
	return u.String()
}

func harmlessURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "***"
	}
	if u.User != nil {
		u.User = url.User("***")
	}
	return u.String()
}
