package tool

// A Kind is what a call wants. Every message that makes a server read or do
// something is of one of them; the zero value is the call of a tool.
type Kind int

// The kinds of calls.
const (
	KindTool Kind = iota
	KindResource
	KindSubscribe
	KindUnsubscribe
	KindPrompt
	KindCompletion
	KindLogLevel
)

var kinds = [...]struct{ word, method, action string }{
	KindTool:        {"tool", "tools/call", "tool.call"},
	KindResource:    {"resource", "resources/read", "resource.read"},
	KindSubscribe:   {"resource", "resources/subscribe", "resource.subscribe"},
	KindUnsubscribe: {"resource", "resources/unsubscribe", "resource.unsubscribe"},
	KindPrompt:      {"prompt", "prompts/get", "prompt.get"},
	KindCompletion:  {"prompt or resource", "completion/complete", "completion.complete"},
	KindLogLevel:    {"server", "logging/setLevel", "log.level"},
}

// String is what is asked for, in a word.
func (k Kind) String() string { return kinds[k].word }

// Method is the request of MCP.
func (k Kind) Method() string { return kinds[k].method }

// Action is how the audit log calls it.
func (k Kind) Action() string { return kinds[k].action }
