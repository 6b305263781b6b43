package main

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strings"
)

// draw makes a picture of a dashboard from what its queries yielded: a preview
// for those who have no Grafana at hand, which looks different.
func draw(d shown, results map[string][]series, span between) string {
	c := &canvas{span: span}
	bottom := 0
	for _, p := range d.Panels {
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
		c.panel(p, results)
	}
	height := top + bottom*unitHigh + 10
	title := fmt.Sprintf(`<text x="16" y="28" font-size="20" fill="#e8e8ea">%s</text><text x="16" y="48" fill="#9a9ba1">Preview: drawn from what the dashboard's queries yield while Prometheus watches singil demo (three months in %.0f s). Not Grafana, which looks different.</text>`,
		html.EscapeString(d.Title), span.length.Seconds())
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11"><rect width="100%%" height="100%%" fill="#111217"/>%s
%s</svg>
`, 24*unitWide+20, height, title, c.out.String())
}

const (
	unitWide, unitHigh = 50, 32 // pixels of Grafana's grid
	top                = 60
)

var colours = []string{"#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#37872d", "#8ab8ff", "#fade2a", "#c4162a"}

type canvas struct {
	out  strings.Builder
	span between
}

func (c *canvas) text(x, y float64, size int, colour, text string) {
	fmt.Fprintf(&c.out, `<text x="%.0f" y="%.0f" font-size="%d" fill="%s">%s</text>`, x, y, size, colour, html.EscapeString(text))
}

func (c *canvas) panel(p shownPanel, results map[string][]series) {
	x, y := float64(10+p.GridPos.X*unitWide), float64(top+p.GridPos.Y*unitHigh)
	w, h := float64(p.GridPos.W*unitWide-8), float64(p.GridPos.H*unitHigh-8)
	if p.Type == "row" {
		c.text(x+4, y+18, 14, "#c7c8cc", "▾ "+p.Title)
		return
	}
	fmt.Fprintf(&c.out, "\n"+`<rect x="%.0f" y="%.0f" width="%.0f" height="%.0f" rx="3" fill="#181b1f" stroke="#2a2d33"/>`, x, y, w, h)
	c.text(x+10, y+18, 12, "#d8d9da", p.Title)
	var all []drawn
	for _, q := range p.Targets {
		for _, s := range results[p.Title+": "+q.RefID] {
			all = append(all, drawn{s, legend(q.LegendFormat, s.labels)})
		}
	}
	if len(all) == 0 {
		c.text(x+w/2-22, y+h/2+8, 12, "#6e7076", "No data")
		return
	}
	// What was highest comes first: the legend has no room for everything.
	slices.SortStableFunc(all, func(a, b drawn) int {
		return cmp.Or(cmp.Compare(b.highest(), a.highest()), cmp.Compare(a.name, b.name))
	})
	switch p.Type {
	case "stat":
		c.figure(p, all[0].series.last(), x, y+h/2+16)
	case "bargauge":
		c.bars(p, all, x+10, y+28, w-20, h-34)
	default:
		c.lines(p, all, x+48, y+30, w-60, h-66)
	}
}

type drawn struct {
	series series
	name   string
}

func (d drawn) highest() float64 {
	most := math.Inf(-1)
	for _, p := range d.series.points {
		most = max(most, p.value)
	}
	return most
}

var braces = regexp.MustCompile(`\{\{(\w+)\}\}`)

func legend(format string, labels map[string]string) string {
	return braces.ReplaceAllStringFunc(format, func(name string) string { return labels[strings.Trim(name, "{}")] })
}

func (c *canvas) figure(p shownPanel, value, x, y float64) {
	colour := "#73bf69"
	for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
		if step.Value == nil || value >= *step.Value {
			colour = map[string]string{"green": "#73bf69", "red": "#f2495c"}[step.Color]
		}
	}
	text := show(p.FieldConfig.Defaults.Unit, value)
	for _, m := range p.FieldConfig.Defaults.Mappings {
		if word, found := m.Options[fmt.Sprint(value)]; found {
			text = word.Text
		}
	}
	c.text(x+14, y, 26, colour, text)
}

func (c *canvas) bars(p shownPanel, all []drawn, x, y, w, h float64) {
	all = slices.DeleteFunc(all, func(d drawn) bool { return d.series.last() == 0 })
	slices.SortStableFunc(all, func(a, b drawn) int { return cmp.Compare(b.series.last(), a.series.last()) })
	if len(all) == 0 {
		c.text(x+w/2-8, y+h/2, 12, "#6e7076", "0")
		return
	}
	high := min(h/float64(len(all)), 26)
	for i, d := range all {
		at := y + float64(i)*high
		c.text(x, at+high/2+4, 11, "#c7c8cc", d.name)
		fmt.Fprintf(&c.out, `<rect x="%.0f" y="%.1f" width="%.1f" height="%.1f" fill="#73bf69" opacity="0.75"/>`, x+170, at+2, max(2, (w-230)*d.series.last()/all[0].series.last()), high-4)
		c.text(x+w-52, at+high/2+4, 11, "#d8d9da", show(p.FieldConfig.Defaults.Unit, d.series.last()))
	}
}

func (c *canvas) lines(p shownPanel, all []drawn, x, y, w, h float64) {
	most := all[0].highest()
	if most <= 0 {
		most = 1
	}
	for i := range 3 {
		at := y + h*float64(i)/2
		fmt.Fprintf(&c.out, `<path d="M%.0f %.1fh%.0f" stroke="#2a2d33"/>`, x, at, w)
		c.text(x-40, at+4, 10, "#8e9096", show(p.FieldConfig.Defaults.Unit, most*(1-float64(i)/2)))
	}
	for i := len(all) - 1; i >= 0; i-- {
		var path strings.Builder
		before := c.span.from
		for n, pt := range all[i].series.points {
			word := "L"
			if n == 0 || pt.at.Sub(before).Seconds() > 1.5 { // a gap
				word = "M"
			}
			before = pt.at
			fmt.Fprintf(&path, "%s%.1f %.1f", word, x+w*pt.at.Sub(c.span.from).Seconds()/c.span.length.Seconds(), y+h*(1-max(0, pt.value)/most))
		}
		fmt.Fprintf(&c.out, `<path d="%s" fill="none" stroke="%s" stroke-width="1.3"/>`, path.String(), colours[i%len(colours)])
	}
	left := x - 36
	for i, d := range all {
		wide := 24 + 6.4*float64(len(d.name))
		if left+wide > x+w+8 {
			c.text(left, y+h+26, 11, "#8e9096", fmt.Sprintf("+%d", len(all)-i))
			break
		}
		fmt.Fprintf(&c.out, `<rect x="%.0f" y="%.0f" width="10" height="3" fill="%s"/>`, left, y+h+21, colours[i%len(colours)])
		c.text(left+14, y+h+26, 11, "#c7c8cc", d.name)
		left += wide
	}
}

// show is a value with its unit, as short as it can be.
func show(unit string, v float64) string {
	short := func(v float64) string {
		for _, step := range []struct {
			from float64
			word string
		}{{1e9, "G"}, {1e6, "M"}, {1e4, "k"}} {
			if v >= step.from {
				per := map[string]float64{"G": 1e9, "M": 1e6, "k": 1e3}[step.word]
				return fmt.Sprintf("%.3g%s", v/per, step.word)
			}
		}
		if v == math.Trunc(v) || v >= 100 {
			return fmt.Sprintf("%.0f", v)
		}
		return fmt.Sprintf("%.2g", v)
	}
	switch unit {
	case "currencyPHP":
		return "₱" + short(v)
	case "percentunit":
		return fmt.Sprintf("%.3g%%", 100*v)
	case "s":
		if v >= 3600 {
			return short(v/3600) + " h"
		}
		return short(v) + " s"
	case "bytes":
		return fmt.Sprintf("%.3g MiB", v/(1<<20))
	case "cps", "reqps":
		return short(v) + "/s"
	}
	return short(v)
}
