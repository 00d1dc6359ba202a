package authn_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/gatehouse-mcp/gatehouse/internal/authn"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/seal"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/store/storetest"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// watchman is an Authn whose tokens follow the log until stop.
func watchman(t *testing.T) (a *authn.Authn, stop func()) {
	t.Helper()
	key, err := seal.LoadKey(filepath.Join(t.TempDir(), "master.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	tokens := &token.Tokens{DB: storetest.Open(t, storetest.SQLite(t)), Box: &seal.Box{Keeper: key}, Issuer: "http://localhost", Log: slog.New(slog.DiscardHandler)}
	if err := tokens.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { tokens.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); run.Wait() })
	t.Cleanup(stop)
	return &authn.Authn{Tokens: tokens}, stop
}

func through(family string) principal.Principal {
	return principal.Principal{
		Kind: principal.Member, Workspace: "default", User: "usr_1", Client: "app", Token: "at_" + family, Family: family, Key: "kid_" + family,
		Expires: time.Now().Add(time.Hour),
	}
}

func revoke(t *testing.T, a *authn.Authn, id string) {
	t.Helper()
	err := a.Tokens.DB.Do(t.Context(), func(tx *store.Tx) error { return a.Tokens.Revoke(tx, id, time.Hour) })
	if err != nil {
		t.Fatal(err)
	}
}

// ends waits until ctx has ended and returns why.
func ends(t *testing.T, ctx context.Context) error {
	t.Helper()
	select {
	case <-ctx.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on")
	}
	return context.Cause(ctx)
}

// Streams and long calls end with the token they run on, by whatever name it is
// revoked, and no other does.
func TestWhileEndsWithItsToken(t *testing.T) {
	a, _ := watchman(t)
	type run struct {
		family string
		ctx    context.Context
	}
	var runs []run
	for i := range 2000 {
		family := []string{"fam_token", "fam_family", "fam_key", "fam_alive"}[i%4]
		ctx, cancel := a.While(t.Context(), through(family))
		defer cancel()
		runs = append(runs, run{family, ctx})
	}
	revoke(t, a, "at_fam_token")
	revoke(t, a, "fam_family")
	revoke(t, a, "kid_fam_key")
	for _, r := range runs {
		if r.family == "fam_alive" {
			if err := context.Cause(r.ctx); problem.Is(err, authn.TokenInvalid) {
				t.Fatalf("a bystander ended with %v", err)
			}
			continue
		}
		if err := ends(t, r.ctx); !problem.Is(err, authn.TokenInvalid) {
			t.Fatalf("ended with %v", err)
		}
	}
	for _, family := range []string{"fam_token", "fam_family", "fam_key"} {
		late, cancel := a.While(t.Context(), through(family))
		defer cancel()
		if late.Err() == nil {
			t.Errorf("what is revoked already begins: %s", family)
		}
	}
	revoke(t, a, "app")
	for _, r := range runs {
		ends(t, r.ctx)
	}
}

func TestWhileEndsWhenTheTokenExpires(t *testing.T) {
	a, _ := watchman(t)
	soon, never := through("fam_1"), through("fam_2")
	soon.Expires, never.Expires = time.Now().Add(50*time.Millisecond), time.Time{}
	for _, p := range []principal.Principal{soon, never} { // without an expiry it is over already
		ctx, cancel := a.While(t.Context(), p)
		defer cancel()
		if err := ends(t, ctx); !problem.Is(err, authn.TokenInvalid) {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestWhileEndsOnANodeThatIsCutOff(t *testing.T) {
	a, stop := watchman(t)
	ctx, cancel := a.While(t.Context(), through("fam_1"))
	defer cancel()
	stop()
	if err := ends(t, ctx); !problem.Is(err, token.Unknown) {
		t.Errorf("ended with %v", err)
	}
}

func TestWhileLeavesDirectCallersAlone(t *testing.T) {
	a, stop := watchman(t)
	stop()
	ctx, cancel := a.While(t.Context(), principal.Principal{Kind: principal.Member, User: "local", Rank: principal.Owner})
	if ctx.Err() != nil {
		t.Error("ended")
	}
	if cancel(); ctx.Err() == nil {
		t.Error("cannot be cancelled")
	}
}

type traceKey struct{}

// What has ended, for whatever reason, leaves nothing behind; and while it runs,
// it costs no goroutine.
func TestWhileLeavesNothingBehind(t *testing.T) {
	a, _ := watchman(t)
	before := runtime.NumGoroutine()
	parent, endParent := context.WithCancel(t.Context())
	var traces []weak.Pointer[[64]byte]
	var cancels []context.CancelFunc
	for i := range 3000 {
		p, ctx, trace := through("fam_1"), t.Context(), new([64]byte)
		switch i % 3 {
		case 0:
			p.Expires = time.Now().Add(10 * time.Millisecond)
		case 1:
			ctx = parent
		}
		_, cancel := a.While(context.WithValue(ctx, traceKey{}, trace), p)
		traces = append(traces, weak.Make(trace))
		if i%3 == 2 {
			cancels = append(cancels, cancel)
		}
	}
	if n := runtime.NumGoroutine() - before; n > 500 {
		t.Errorf("%d goroutines", n)
	}
	endParent()
	for _, cancel := range cancels {
		cancel()
	}
	cancels = nil
	left := func() (n int) {
		runtime.GC()
		for _, trace := range traces {
			if trace.Value() != nil {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(30 * time.Second); left() > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are kept", left())
		}
	}
}
