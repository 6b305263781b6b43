package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func healthcheckCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the daemon of this machine whether it is ready",
		Long: `Ask the daemon that listens on SINGIL_LISTEN whether it is ready, for images
without a shell: exit code 0 it is, 1 it is not or does not answer.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := readConfig()
			if err != nil {
				return exitCode{1, err}
			}
			return checkHealth(cmd.Context(), c.Listen, timeout)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 4*time.Second, "how long to wait for an answer")
	return cmd
}

func checkHealth(ctx context.Context, listen string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return exitCode{1, fmt.Errorf("SINGIL_LISTEN: %w", err)}
	}
	// Whoever listens on every address also listens on this one.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", http.NoBody)
	if err != nil {
		return exitCode{1, err}
	}
	// No proxy of the environment stands between the two.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return exitCode{1, err}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err := cmp.Or(err, resp.Body.Close()); err != nil {
		return exitCode{1, err}
	}
	if resp.StatusCode != http.StatusOK {
		return exitCode{1, fmt.Errorf("not ready: %s %s", resp.Status, strings.TrimSpace(string(body)))}
	}
	return nil
}
