package launch

import "strings"

// candidates returns the paths under which execvp(3) would look for name.
func candidates(name string, env []string) []string {
	if name == "" {
		return nil
	}
	if strings.Contains(name, "/") {
		return []string{name}
	}
	search := "/bin:/usr/bin" // execvp's default, confstr(_CS_PATH)
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			search = value
			break
		}
	}
	var paths []string
	for dir := range strings.SplitSeq(search, ":") {
		if dir == "" {
			paths = append(paths, name) // the working directory
			continue
		}
		paths = append(paths, strings.TrimSuffix(dir, "/")+"/"+name)
	}
	return paths
}
