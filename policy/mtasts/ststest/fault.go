package ststest

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"postseal/policy/mtasts"
)

// faultNames are all but the status codes.
func faultNames() []string {
	return []string{
		"", "expired", "notyet", "selfsigned", "wrongname", "cnonly", "badcert", "oldissuer", "tls11", "close", "truncate",
		"garbage", "slow", "drip", "big", "chunked", "bigheader", "gzip", "html", "nocontenttype",
		"redirect", "103", "hang404",
	}
}

func isFault(fault string) bool {
	return slices.Contains(faultNames(), fault) || status(fault) != 0
}

// status returns the status code that a fault is, or 0.
func status(fault string) int {
	if fault == "redirect" {
		return http.StatusMovedPermanently
	}
	if code, err := strconv.Atoi(fault); err == nil && code >= 200 && code <= 599 {
		return code
	}
	return 0
}

// respond sends the policy, or what the fault makes of it.
func respond(w http.ResponseWriter, r *http.Request, h policyHost) {
	header := w.Header()
	header.Set("Content-Type", "text/plain")
	if h.media != nil {
		header.Set("Content-Type", *h.media)
	}
	// Nothing of these may have an effect on a sender (RFC 8461 §3.3).
	header.Set("Cache-Control", "max-age=86400")
	header.Set("ETag", `"ststest"`)
	header.Set("Set-Cookie", "ststest=1")
	body := []byte(h.body)
	code := status(h.fault)
	switch h.fault {
	case "close", "garbage":
		hijack(w, h.fault)
		return
	case "truncate":
		header.Set("Content-Length", strconv.Itoa(len(body)+100))
	case "slow":
		<-r.Context().Done()
		return
	case "hang404":
		w.WriteHeader(http.StatusNotFound)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	case "drip":
		drip(w, r, body)
		return
	case "chunked":
		for i := range body {
			w.Write(body[i : i+1])
			http.NewResponseController(w).Flush()
		}
		return
	case "big":
		filler := "x: " + strings.Repeat("y", 96) + "\n"
		body = append(body, strings.Repeat(filler, mtasts.MaxBody/len(filler)+1)...)[:mtasts.MaxBody+1]
		header.Set("Content-Length", strconv.Itoa(len(body)))
	case "bigheader":
		header.Set("X-Big", strings.Repeat("x", 64<<10))
	case "gzip":
		header.Set("Content-Encoding", "gzip")
		body = compress(body)
	case "html":
		header.Set("Content-Type", "text/html; charset=utf-8")
	case "nocontenttype":
		header["Content-Type"] = nil
	case "103":
		w.WriteHeader(http.StatusEarlyHints)
	}
	if code/100 == 3 {
		header.Set("Location", "https://"+r.Host+"/elsewhere")
	}
	if code != 0 {
		w.WriteHeader(code)
	}
	w.Write(body)
}

// hijack closes the connection, after some garbage if that is the fault.
func hijack(w http.ResponseWriter, fault string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if fault == "garbage" {
		conn.Write([]byte("220 this is \x1b[31m not HTTP\r\n\r\n"))
	}
}

func drip(w http.ResponseWriter, r *http.Request, body []byte) {
	for i := range body {
		w.Write(body[i : i+1])
		http.NewResponseController(w).Flush()
		if !wait(r.Context(), 20*time.Millisecond, nil) {
			return
		}
	}
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(body)
	z.Close()
	return b.Bytes()
}
