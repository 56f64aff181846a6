package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit = 20 * time.Second // for a server to listen
	stopLimit  = 10 * time.Second // for a server to end after SIGTERM
)

// server is a server that runs in some mode and listens on a loopback port.
type server struct {
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	pidFile string
	done    chan error
}

// serve starts words and waits until the port answers. The server writes its
// own process ID to pidFile: what runs it (strace, say) may not pass on signals.
func serve(ctx context.Context, dir string, words []string, port int, pidFile string) (*server, error) {
	s := &server{cmd: start(ctx, dir, words), pidFile: pidFile, done: make(chan error, 1)}
	s.cmd.Stderr = &s.stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.done <- s.cmd.Wait() }()
	for begin := time.Now(); time.Since(begin) < startLimit; time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-s.done:
			return nil, fmt.Errorf("%s ended before it listened: %w: %s", words[0], err, lastLine(s.stderr.String()))
		default:
		}
		if c, err := net.DialTimeout("tcp", loopback(port), time.Second); err == nil {
			return s, c.Close()
		}
	}
	return nil, errors.Join(fmt.Errorf("%s did not listen within %v", strings.Join(words, " "), startLimit), s.kill())
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// stop ends the server and waits for what ran it.
func (s *server) stop() error {
	text, err := os.ReadFile(s.pidFile)
	if err != nil {
		return errors.Join(err, s.kill())
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return errors.Join(fmt.Errorf("%s holds %q instead of a process ID", s.pidFile, text), s.kill())
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return errors.Join(fmt.Errorf("end the server: %w", err), s.kill())
	}
	select {
	case <-s.done:
		return nil
	case <-time.After(stopLimit):
		return errors.Join(fmt.Errorf("the server did not end within %v", stopLimit), s.kill())
	}
}

// kill ends everything in the server's session that is still in its group.
func (s *server) kill() error {
	err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// freePort finds a loopback port that nobody uses now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// underLoad runs the server and then, bare, its load generator: for a while that
// does not count, and then for size. Servers are timed, as loops are, once the
// call sites of a request are patched.
func underLoad(ctx context.Context, l *lab, server func(dir string, port int) (words []string, pidFile string, err error),
	m mode, load func(port, size int) []string, size int, cost func(stdout string) (float64, error)) (out outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dir, remove, err := l.scratch()
	if err != nil {
		return out, err
	}
	defer remove()
	port, err := freePort()
	if err != nil {
		return out, err
	}
	words, pidFile, err := server(dir, port)
	if err != nil {
		return out, err
	}
	s, err := serve(ctx, dir, m.wrap(words...), port, pidFile)
	if err != nil {
		return out, err
	}
	if _, err := l.run(ctx, dir, load(port, max(size/50, 1))); err != nil {
		return out, errors.Join(err, s.stop())
	}
	loaded, err := l.run(ctx, dir, load(port, size))
	if err = errors.Join(err, s.stop()); err != nil {
		return out, err
	}
	out.cost, err = cost(loaded.stdout)
	out.said = s.stderr.String()
	return out, err
}

// nginxUnderWrk serves a small file to wrk for size seconds.
func nginxUnderWrk(ctx context.Context, l *lab, m mode, size int) (outcome, error) {
	return underLoad(ctx, l, nginxServer, m, func(port, size int) []string {
		return []string{"wrk", "-t1", "-c32", "-d" + strconv.Itoa(size) + "s", "http://" + loopback(port) + "/"}
	}, size, wrkCost)
}

func nginxServer(dir string, port int) (words []string, pidFile string, err error) {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the worker must be able to read our directory
	}
	pidFile = filepath.Join(dir, "nginx.pid")
	config := fmt.Sprintf(`%s
daemon off;
worker_processes 1;
pid %s;
error_log stderr crit;
events { worker_connections 256; }
http {
	access_log off;
	keepalive_requests 1000000;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	server {
		listen %s;
		root html;
	}
}
`, user, pidFile, loopback(port))
	err = errors.Join(
		os.Mkdir(filepath.Join(dir, "html"), 0o700),
		os.WriteFile(filepath.Join(dir, "html", "index.html"), bytes.Repeat([]byte("indirect\n"), 64), 0o600),
		os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600),
	)
	return []string{"nginx", "-p", dir, "-e", "stderr", "-c", "nginx.conf"}, pidFile, err
}

var (
	wrkRate   = regexp.MustCompile(`(?m)^Requests/sec:\s+([0-9.]+)`)
	wrkErrors = regexp.MustCompile(`(?m)^\s*(Socket errors:|Non-2xx).*`)
)

// wrkCost reads the seconds a request from wrk's report.
func wrkCost(report string) (float64, error) {
	if bad := wrkErrors.FindString(report); bad != "" {
		return 0, fmt.Errorf("wrk says: %s", strings.TrimSpace(bad))
	}
	found := wrkRate.FindStringSubmatch(report)
	if found == nil {
		return 0, fmt.Errorf("wrk printed no rate: %q", report)
	}
	return costOfRate(found[1])
}

// redisUnderBenchmark runs size SET and size GET requests.
func redisUnderBenchmark(ctx context.Context, l *lab, m mode, size int) (outcome, error) {
	return underLoad(ctx, l, redisServer, m, func(port, size int) []string {
		return []string{"redis-benchmark", "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-t", "set,get", "-c", "32", "-n", strconv.Itoa(size), "--csv"}
	}, size, redisCost)
}

func redisServer(dir string, port int) (words []string, pidFile string, err error) {
	pidFile = filepath.Join(dir, "redis.pid")
	return []string{
		"redis-server", "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--pidfile", pidFile,
		"--daemonize", "no", "--save", "", "--appendonly", "no", "--logfile", filepath.Join(dir, "log"),
	}, pidFile, nil
}

var redisRate = regexp.MustCompile(`(?m)^"(?:SET|GET)","([0-9.]+)"`)

// redisCost reads the mean seconds a request from redis-benchmark's CSV.
func redisCost(report string) (float64, error) {
	found := redisRate.FindAllStringSubmatch(report, -1)
	if len(found) != 2 {
		return 0, fmt.Errorf("redis-benchmark printed %d rates instead of 2: %q", len(found), report)
	}
	var sum float64
	for _, f := range found {
		cost, err := costOfRate(f[1])
		if err != nil {
			return 0, err
		}
		sum += cost
	}
	return sum / 2, nil
}

// costOfRate turns requests a second into seconds a request.
func costOfRate(s string) (float64, error) {
	rate, err := strconv.ParseFloat(s, 64)
	if err != nil || rate <= 0 {
		return 0, fmt.Errorf("%q is not a rate", s)
	}
	return 1 / rate, nil
}
