package recorder

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/seed-055cd0c8/indirect/supervise"
)

// Recording is what the recorder of one run writes, whichever supervisor it is in.
type Recording struct {
	config json.RawMessage
	latent bool
	log    *os.File
}

// New makes the recording of a run.
func New(c Config) (*Recording, error) {
	config, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("write the audit's configuration: %w", err)
	}
	file, err := newLog()
	if err != nil {
		return nil, err
	}
	return &Recording{config, c.Latent, file}, nil
}

// Extension is to run in the supervisor.
func (r *Recording) Extension() supervise.Extension {
	return supervise.Extension{Name: Name, Config: r.config, File: r.log, Traps: Traps(r.latent)}
}

// Read calls f with each entry so far, in the order of their writing. It
// returns f's error, or the log's.
func (r *Recording) Read(f func(Entry) error) error { return readLog(r.log, f) }

// Close gives the recording up.
func (r *Recording) Close() error { return r.log.Close() }

// Size is how many bytes of log there are so far.
func (r *Recording) Size() int64 {
	info, err := r.log.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}
