// Package include holds what C programs are built with: the header indirect.h
// and the description that pkg-config(1) reads. The package is here because Go
// embeds only files below the package that asks for them.
package include

import (
	_ "embed"
	"strings"
)

//go:embed indirect.h
var header string

//go:embed indirect.pc.in
var pkgConfig string

// Header is the text of indirect.h.
func Header() string { return header }

// PkgConfig is the text of indirect.pc for a version of indirect. The file
// belongs into a directory beside the header: it names the header's place
// relative to its own, so that the two can be moved together.
func PkgConfig(version string) string {
	return strings.ReplaceAll(pkgConfig, "@VERSION@", version)
}
