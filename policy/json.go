package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// wire is a Policy as one process hands it to another.
type wire struct {
	ExemptShells bool `json:"exempt_shells"`
	General      rule `json:"general"`
	// Programs has its keys in Go syntax: a file name may be any bytes, a
	// JSON string may not.
	Programs map[string]rule `json:"programs,omitempty"`
}

// MarshalJSON encodes the policy without loss for [Policy.UnmarshalJSON] in
// another process. This is not the format that users write.
func (p *Policy) MarshalJSON() ([]byte, error) {
	w := wire{p.exemptShells, p.general, make(map[string]rule, len(p.programs))}
	for match, r := range p.programs {
		w.Programs[strconv.Quote(match)] = r
	}
	return json.Marshal(w)
}

// UnmarshalJSON replaces the policy by the encoded one. On error the policy is
// unchanged.
func (p *Policy) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var w wire
	if err := d.Decode(&w); err != nil {
		return fmt.Errorf("decode a policy: %w", err)
	}
	decoded := Policy{exemptShells: w.ExemptShells, general: w.General}
	for quoted, r := range w.Programs {
		match, err := strconv.Unquote(quoted)
		if err != nil {
			return fmt.Errorf("decode a policy: program %s: %w", quoted, err)
		}
		if err := checkMatch(match); err != nil {
			return fmt.Errorf("decode a policy: program %s: %w", quoted, err)
		}
		decoded.set(match, r)
	}
	*p = decoded
	return nil
}
