package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// BenchmarkRequestLog is what the reference and the line of a request cost.
func BenchmarkRequestLog(b *testing.B) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	h := &house{}
	h.log, h.level, _ = newLog(Config{LogFormat: "json"}, io.Discard)
	for name, handler := range map[string]http.Handler{"without": answer, "with": h.logged(answer)} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodPost, "/mcp", nil)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				handler.ServeHTTP(w, r)
			}
		})
	}
}
