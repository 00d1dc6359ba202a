package authn

import (
	"context"

	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
)

// While returns a context for what runs on the strength of p's token: a stream,
// or a call that takes a while. It ends when the token expires or is revoked, or
// when this node has been unable to tell for two seconds; context.Cause then says
// which, as Bearer would for the next request. Whoever came without a token is
// not watched.
func (a *Authn) While(ctx context.Context, p principal.Principal) (context.Context, context.CancelFunc) {
	if p.Token == "" {
		return context.WithCancel(ctx)
	}
	ctx, end := context.WithCancelCause(ctx)
	ctx, cancel := context.WithDeadlineCause(ctx, p.Expires, refuse(token.ErrToken("the token has expired")))
	stop := a.Tokens.Watch(func(err error) { end(refuse(err)) }, p.Token, p.Family, p.Client, p.Key)
	free := func() { stop(); cancel(); end(nil) }
	context.AfterFunc(ctx, free)
	return ctx, free
}
