// A server and a client on Go's net/http; tests/peers/programs.py says what they must do.
// It is written for Go 1.19, the one of Debian 12.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
)

// pattern is an endless body: byte i is i modulo 251, a prime, so that no block looks like its neighbour.
type pattern struct{ at int }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(p.at % 251)
		p.at++
	}
	return len(b), nil
}

func body(size int) io.Reader { return io.LimitReader(&pattern{}, int64(size)) }

func whoami(w http.ResponseWriter, r *http.Request) {
	answer(w, map[string]any{"remote": r.RemoteAddr, "local": r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()})
}

func bytesOf(framed bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		size, err := strconv.Atoi(text)
		if err != nil || size < 0 {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		if framed {
			w.Header().Set("Content-Length", text)
		} else {
			w.(http.Flusher).Flush()
		}
		io.Copy(w, body(size))
	}
}

func digest(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	size, err := io.Copy(hash, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	answer(w, map[string]any{"bytes": size, "sha256": hex.EncodeToString(hash.Sum(nil))})
}

func answer(w http.ResponseWriter, content any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(content)
}

func serve(port string) {
	http.HandleFunc("/whoami", whoami)
	http.HandleFunc("/bytes/", bytesOf(true))
	http.HandleFunc("/chunked/", bytesOf(false))
	http.HandleFunc("/digest", digest)
	log.Fatal(http.ListenAndServe(":"+port, nil))
}

type report struct {
	Statuses    []int    `json:"statuses"`
	Local       []string `json:"local"`
	Remote      []string `json:"remote"`
	Connections int      `json:"connections"`
	Bytes       int64    `json:"bytes"`
	SHA256      string   `json:"sha256"`
}

// ask makes one request and adds what it saw to the report.
func (r *report) ask(url string, upload int, sink io.Writer) error {
	method, content := http.MethodGet, io.Reader(nil)
	if upload > 0 {
		method, content = http.MethodPost, body(upload)
	}
	request, err := http.NewRequest(method, url, content)
	if err != nil {
		return err
	}
	request.ContentLength = int64(upload)
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			r.Connections++
		}
		r.Local = append(r.Local, info.Conn.LocalAddr().String())
		r.Remote = append(r.Remote, info.Conn.RemoteAddr().String())
	}}
	response, err := http.DefaultClient.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	size, err := io.Copy(sink, response.Body)
	r.Statuses = append(r.Statuses, response.StatusCode)
	r.Bytes += size
	return err
}

func call(count, upload int, urls []string) error {
	seen, hash := report{}, sha256.New()
	for i := 0; i < count; i++ {
		for _, url := range urls {
			if err := seen.ask(url, upload, hash); err != nil {
				return err
			}
		}
	}
	seen.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return json.NewEncoder(os.Stdout).Encode(seen)
}

func main() {
	if os.Args[1] == "serve" {
		serve(os.Args[2])
	}
	count, _ := strconv.Atoi(os.Args[2])
	upload, _ := strconv.Atoi(os.Args[3])
	if err := call(count, upload, os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
