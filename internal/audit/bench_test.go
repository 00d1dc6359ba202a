package audit

import (
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
)

// benchEach runs f on every engine with 1 and 16 workers, each of which calls
// it until b.N is reached.
func benchEach(b *testing.B, f func(l *Log) error) {
	for engine, address := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		if engine == "postgres" && os.Getenv("GATEHOUSE_TEST_POSTGRES") == "" {
			continue
		}
		for name, workers := range map[string]int{"1": 1, "16": 16} {
			b.Run(engine+"/"+name, func(b *testing.B) {
				l := open(b, storetest.Open(b, address(b)))
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for range workers {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							if err := f(l); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// BenchmarkWrite is one durable event of an outside call.
func BenchmarkWrite(b *testing.B) {
	benchEach(b, func(l *Log) error { return l.Write(b.Context(), call("default")) })
}

// BenchmarkAppend is one transaction with nothing but its event.
func BenchmarkAppend(b *testing.B) {
	benchEach(b, func(l *Log) error {
		return l.DB.Do(b.Context(), func(tx *store.Tx) error {
			l.Append(tx, call("default"))
			return nil
		})
	})
}
