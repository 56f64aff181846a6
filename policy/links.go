package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"reflect"
	"slices"
)

// FollowLinks makes every rule for a path hold for the file that the path
// leads to as well. /proc/PID/exe shows that file: where /bin is a link to
// usr/bin, no program is ever seen as /bin/login. Paths that do not exist
// or may not be searched stay as they are. It fails, and changes nothing, if two different rules turn out to
// be for one file, and if a rule that adds something is by its link for a shell as well.
func (p *Policy) FollowLinks() error {
	var mistakes []error
	from := make(map[string]string) // by file: the path that the user wrote
	for _, match := range slices.Sorted(maps.Keys(p.programs)) {
		if !path.IsAbs(match) {
			continue
		}
		file, err := filepath.EvalSymlinks(match)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			file = match
		case err != nil:
			mistakes = append(mistakes, fmt.Errorf("find the file behind the policy's rule for %s: %w", match, err))
			continue
		}
		if other, twice := from[file]; twice && !reflect.DeepEqual(p.programs[other], p.programs[match]) {
			mistakes = append(mistakes, fmt.Errorf("the policy's rules for %s and %s differ, but both are for the file %s; make one rule of the two", other, match, file))
			continue
		}
		from[file] = match
		if p.programs[match].adds() && isShell(path.Base(file)) && !isShell(path.Base(match)) {
			mistakes = append(mistakes, fmt.Errorf("the policy's rule for %s would also be for the shell, because it is a link to %s; remove it, or name %[2]s", match, file))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return err
	}
	for file, match := range from {
		p.set(file, p.programs[match])
	}
	return nil
}
