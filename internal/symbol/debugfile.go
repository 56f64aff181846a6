package symbol

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// link is a .gnu_debuglink: the name of a debug file, and its checksum.
type link struct {
	name string
	crc  uint32
}

func debugLink(e *elf.File) link {
	s := e.Section(".gnu_debuglink")
	const longest = 4096
	if s == nil || s.Size > longest {
		return link{}
	}
	b, err := s.Data()
	if err != nil {
		return link{}
	}
	name, _, ok := bytes.Cut(b, []byte{0})
	if !ok || len(b) < 4 || string(name) != filepath.Base(string(name)) {
		return link{}
	}
	return link{string(name), binary.LittleEndian.Uint32(b[len(b)-4:])}
}

// debugFile opens the separate debug file of a module, nil if there is none
// (GDB manual, "Debugging Information in Separate Files").
func (s *Symbolizer) debugFile(ctx context.Context, path, id string, l link) *os.File {
	const shortest = 4
	if _, err := hex.DecodeString(id); err == nil && len(id) >= shortest {
		if f := openDebug(filepath.Join(s.options.Debug, ".build-id", id[:2], id[2:]+".debug")); f != nil {
			return f
		}
	}
	if l.name != "" && path != "" {
		dir := filepath.Dir(path)
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		for _, candidate := range []string{
			filepath.Join(dir, l.name), filepath.Join(dir, ".debug", l.name), filepath.Join(s.options.Debug, dir, l.name),
		} {
			if f := openDebug(candidate); f != nil {
				if l.matches(f) {
					return f
				}
				f.Close()
			}
		}
	}
	for _, server := range s.options.Debuginfod {
		if f, err := s.download(ctx, server, id); err == nil {
			return f
		}
	}
	return nil
}

func openDebug(path string) *os.File {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil
	}
	return f
}

func (l link) matches(f *os.File) bool {
	h := crc32.NewIEEE()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, maxDownload)); err != nil {
		return false
	}
	return h.Sum32() == l.crc
}

// Bounds of a download.
const (
	maxDownload     = 1 << 30
	downloadTimeout = 90 * time.Second // debuginfod's own client's
)

// download gets a debug file from a debuginfod server (debuginfod(8), WEBAPI),
// or from the cache of earlier downloads.
func (s *Symbolizer) download(ctx context.Context, server, id string) (*os.File, error) {
	if _, err := hex.DecodeString(id); err != nil || id == "" {
		return nil, errors.New("a file without a build ID cannot be asked for")
	}
	cache := s.options.Cache
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		cache = filepath.Join(dir, "debuginfod_client")
	}
	dir := filepath.Join(cache, id)
	kept := filepath.Join(dir, "debuginfo")
	if f := openDebug(kept); f != nil && fileSize(f) > 0 {
		return f, nil
	} else if f != nil {
		f.Close() // an empty file: not found lately
	}
	at, err := url.JoinPath(server, "buildid", id, "debuginfo")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	response, err := s.options.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", at, response.Status)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	partial, err := os.CreateTemp(dir, ".debuginfo-")
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(partial, io.LimitReader(response.Body, maxDownload+1))
	if n > maxDownload {
		err = fmt.Errorf("get %s: more than %d bytes", at, maxDownload)
	}
	if err == nil {
		err = os.Rename(partial.Name(), kept)
	}
	if err != nil {
		partial.Close()
		os.Remove(partial.Name())
		return nil, err
	}
	return partial, nil
}
