package main

import (
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/bargauge"
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// board is a dashboard before it is Grafana's.
type board struct {
	uid, title, about string
	other             link // the dashboard that this one leads to
	rows              []row
}

type link struct{ uid, title string }

type row struct {
	title  string
	panels []panel
}

// panel is one question with its answer. Shows says what is drawn; bad says what
// to do when it looks wrong. Both become its description.
type panel struct {
	kind       kind
	title      string
	unit       string
	shows, bad string
	queries    []query
	width      uint32            // of 24
	red        float64           // from here on a figure is red; 0: never
	redBelow   bool              // below it instead
	words      map[string]string // what values of a figure mean
}

type kind int

const (
	lines kind = iota
	figure
	bars // one bar a series, over the range that is looked at
)

// query is PromQL. In it {@ opens the selector of this installation's series.
type query struct{ legend, expr string }

const selector = `{job="$job",instance=~"$instance"`

var source = common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}

func (b board) build() (dashboard.Dashboard, error) {
	d := dashboard.NewDashboardBuilder(b.title).Uid(b.uid).Description(b.about).Tags([]string{"singil"}).
		Readonly().Timezone("browser").Tooltip(dashboard.DashboardCursorSyncCrosshair).Time("now-6h", "now").Refresh("30s").
		Link(dashboard.NewDashboardLinkBuilder(b.other.title).Type(dashboard.DashboardLinkTypeLink).Url("/d/" + b.other.uid).IncludeVars(true).KeepTime(true)).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus")).
		WithVariable(variable("job", "Job", "label_values(singil_build_info, job)")).
		WithVariable(variable("instance", "Instance", `label_values(singil_build_info{job="$job"}, instance)`).
			Multi(true).IncludeAll(true).AllValue(".*").Current(dashboard.VariableOption{
			Selected: cog.ToPtr(true),
			Text:     dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
			Value:    dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
		}))
	id := uint32(0)
	for _, r := range b.rows {
		id++
		d = d.WithRow(dashboard.NewRowBuilder(r.title).Id(id))
		for _, p := range r.panels {
			id++
			built, err := p.build(id)
			if err != nil {
				return dashboard.Dashboard{}, fmt.Errorf("%s: %w", p.title, err)
			}
			d = d.WithPanel(made(built))
		}
	}
	return d.Build()
}

func variable(name, label, query string) *dashboard.QueryVariableBuilder {
	return dashboard.NewQueryVariableBuilder(name).Label(label).Datasource(source).
		Query(dashboard.StringOrMap{String: &query}).Definition(query).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc)
}

// made is a panel that was built already.
type made dashboard.Panel

func (m made) Build() (dashboard.Panel, error) { return dashboard.Panel(m), nil }

func (p panel) description() string {
	return p.shows + "\n\n**When it looks bad:** " + p.bad
}

func (p panel) targets() []cog.Builder[variants.Dataquery] {
	var out []cog.Builder[variants.Dataquery]
	for i, q := range p.queries {
		t := prometheus.NewDataqueryBuilder().RefId(string(rune('A' + i))).LegendFormat(q.legend).Datasource(source).
			Expr(strings.ReplaceAll(q.expr, "{@", selector))
		if p.kind == lines {
			t = t.Range()
		} else {
			t = t.Instant()
		}
		out = append(out, t)
	}
	return out
}

func (p panel) build(id uint32) (dashboard.Panel, error) {
	switch p.kind {
	case figure:
		b := stat.NewPanelBuilder().Title(p.title).Description(p.description()).Id(id).Datasource(source).Targets(p.targets()).
			Unit(p.unit).Span(p.wide(4)).Height(4).Thresholds(p.thresholds()).ReduceOptions(last()).ColorMode(common.BigValueColorModeValue)
		if p.words != nil {
			words := map[string]dashboard.ValueMappingResult{}
			for value, word := range p.words {
				words[value] = dashboard.ValueMappingResult{Text: &word}
			}
			b = b.Mappings([]dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{Type: "value", Options: words}}})
		}
		return b.Build()
	case bars:
		return bargauge.NewPanelBuilder().Title(p.title).Description(p.description()).Id(id).Datasource(source).Targets(p.targets()).
			Unit(p.unit).Span(p.wide(8)).Height(8).Min(0).Thresholds(p.thresholds()).ReduceOptions(last()).
			Orientation(common.VizOrientationHorizontal).Build()
	}
	return timeseries.NewPanelBuilder().Title(p.title).Description(p.description()).Id(id).Datasource(source).Targets(p.targets()).
		Unit(p.unit).Span(p.wide(8)).Height(8).Min(0).FillOpacity(8).LineWidth(1).ShowPoints(common.VisibilityModeNever).
		Thresholds(p.thresholds()).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti)).Build()
}

func (p panel) wide(usual uint32) uint32 {
	if p.width > 0 {
		return p.width
	}
	return usual
}

func last() *common.ReduceDataOptionsBuilder {
	return common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})
}

func (p panel) thresholds() *dashboard.ThresholdsConfigBuilder {
	base, above := "green", "red"
	if p.redBelow {
		base, above = above, base
	}
	steps := []dashboard.Threshold{{Color: base}}
	if p.red != 0 {
		steps = append(steps, dashboard.Threshold{Value: &p.red, Color: above})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)
}
