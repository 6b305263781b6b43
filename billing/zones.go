package billing

import (
	"archive/zip"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// The tz database of this build, as the Go distribution carries it. A machine's
// own would do as well, but not two machines' two of them: where they differ about
// an hour, so do the ends of periods. A new one comes with a new build, by
// go generate with a newer Go, and with it everywhere at once.
//
//go:generate sh -c "cp \"$(go env GOROOT)/lib/time/zoneinfo.zip\" tzdata/ && sed -n s/^DATA=//p \"$(go env GOROOT)/lib/time/update.bash\" > tzdata/version"
var (
	//go:embed tzdata/zoneinfo.zip
	zoneArchive string
	//go:embed tzdata/version
	zoneVersion string
)

// ZoneVersion is the release of the tz database that LoadZone reads, such as "2025c".
func ZoneVersion() string { return strings.TrimSpace(zoneVersion) }

var zoneFiles = sync.OnceValue(func() map[string]*zip.File {
	archive, err := zip.NewReader(strings.NewReader(zoneArchive), int64(len(zoneArchive)))
	if err != nil {
		panic(fmt.Errorf("the embedded tz database: %w", err))
	}
	files := make(map[string]*zip.File, len(archive.File))
	for _, file := range archive.File {
		files[file.Name] = file
	}
	return files
})

// readZone finds a zone in the embedded tz database, and nowhere else: neither
// ZONEINFO nor the system's files count, which time.LoadLocation prefers.
func readZone(name string) (_ *time.Location, found bool, err error) {
	if name == "UTC" {
		return time.UTC, true, nil
	}
	file, found := zoneFiles()[name]
	if !found || file.FileInfo().IsDir() {
		return nil, false, nil
	}
	r, err := file.Open()
	if err != nil {
		return nil, true, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, true, err
	}
	zone, err := time.LoadLocationFromTZData(name, data)
	return zone, true, err
}
