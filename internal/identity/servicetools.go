package identity

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/gatehouse-mcp/gatehouse/internal/audit"
	"github.com/gatehouse-mcp/gatehouse/internal/jwks"
	"github.com/gatehouse-mcp/gatehouse/internal/principal"
	"github.com/gatehouse-mcp/gatehouse/internal/problem"
	"github.com/gatehouse-mcp/gatehouse/internal/store"
	"github.com/gatehouse-mcp/gatehouse/internal/token"
	"github.com/gatehouse-mcp/gatehouse/internal/tool"
)

var (
	serviceNameUnusable = problem.Code{
		Name: "SERVICE_NAME_UNUSABLE", Kind: problem.Invalid,
		Why: "a name is one line of up to 64 characters that can be shown",
		Fix: "choose another name",
	}
	serviceExists = problem.Code{
		Name: "SERVICE_EXISTS", Kind: problem.Conflict,
		Why: "each service account of a workspace has a name of its own",
		Fix: "choose another name, or remove the other account first",
	}
	serviceUnknown = problem.Code{
		Name: "SERVICE_UNKNOWN", Kind: problem.NotFound,
		Why: "no service account of this workspace has this id",
		Fix: "list the service accounts and use an id from the list",
	}
	serviceToolUnusable = problem.Code{
		Name: "SERVICE_TOOL_UNUSABLE", Kind: problem.Invalid,
		Fix:   "name tools as they are called at /mcp, with the prefix of their server; leave out those of the owner and of people acting directly",
		About: "the list of a service account names a tool that is not here, or that no service account may call",
	}
	serviceKeysUnusable = problem.Code{
		Name: "SERVICE_KEYS_UNUSABLE", Kind: problem.Invalid,
		Why: "no public key in it could verify what the account signs",
		Fix: "give a JWK Set with a public key of EC P-256, Ed25519, or RSA with at least 2048 bits",
	}
)

// Bounds of a service account.
const (
	maxServiceName  = 64 // characters
	maxServiceTools = 200
	maxServiceKeys  = 16 << 10 // bytes
)

// Tools are the service accounts as callers see them. Who makes one hands out
// what it may do, so only a person acting directly can.
func (p *People) Tools() []tool.Tool {
	def := func(name, title, doc string, effect tool.Effect) tool.Def {
		return tool.Def{Name: name, Title: title, Doc: doc, Effect: effect, Caller: principal.Admin, Scope: "team:write", Direct: true}
	}
	return []tool.Tool{
		tool.Define(tool.Def{
			Name: "list_service_accounts", Title: "List service accounts", Doc: "List the programs that may act for themselves, and the tools each may use.",
			Effect: tool.Reads, Caller: principal.Admin, Scope: "team:read",
		}, p.listServices),
		tool.Define(def("create_service_account", "Create a service account",
			"Make an account for a program that acts for nobody: it may use the tools on its list and nothing else. Its secret is shown once.", tool.Writes), p.createService),
		tool.Define(def("change_service_account", "Change a service account",
			"Give a service account another list of tools, or switch it off or on. The tokens it has stop working at once.", tool.Destroys), p.changeService),
		tool.Define(def("rotate_service_account_secret", "Rotate the secret of a service account",
			"Give a service account a new secret, shown once. The old one, and the tokens it got, stop working at once.", tool.Destroys), p.rotateService),
		tool.Define(def("remove_service_account", "Remove a service account",
			"Remove a service account for good: its tokens stop working at once.", tool.Destroys), p.removeService),
	}
}

// serviceView is a service account as it is shown.
type serviceView struct {
	ID      string    `json:"id" jsonschema:"also its client_id at the token endpoint"`
	Name    string    `json:"name"`
	Tools   []string  `json:"allowed_tools" jsonschema:"all that it may call, by full name"`
	Auth    string    `json:"auth" jsonschema:"how it proves itself: client_secret or private_key_jwt"`
	Status  string    `json:"status" jsonschema:"active or disabled"`
	Created time.Time `json:"created_at"`
	By      string    `json:"created_by"`
	Used    time.Time `json:"last_used,omitzero" jsonschema:"when it last got a token"`
}

type servicesOut struct {
	Accounts []serviceView `json:"service_accounts"`
}

type createServiceIn struct {
	Name  string         `json:"name" jsonschema:"what people call it"`
	Tools []string       `json:"allowed_tools" jsonschema:"full names of the tools it may call"`
	JWKS  map[string]any `json:"jwks,omitempty" jsonschema:"its public keys as a JWK Set; with them it signs (private_key_jwt) and gets no secret"`
}

type secretOut struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret,omitempty" jsonschema:"shown now and never again"`
}

type changeServiceIn struct {
	ID     string   `json:"id"`
	Tools  []string `json:"allowed_tools,omitempty" jsonschema:"the new list; absent: as it is"`
	Active *bool    `json:"active,omitempty" jsonschema:"false switches it off; absent: as it is"`
}

type serviceIn struct {
	ID string `json:"id"`
}

func (p *People) listServices(tx *store.Tx, who principal.Principal, _ struct{}) (out servicesOut, err error) {
	out.Accounts = []serviceView{}
	rows, err := tx.Query(`SELECT id, name, tools, secret_hash IS NULL, status, created_at, created_by, COALESCE(used_at, 0)
		FROM service_account WHERE workspace = $1 ORDER BY name`, who.Workspace)
	if err != nil {
		return out, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		v := serviceView{Auth: "client_secret"}
		var tools string
		var signs bool
		var created, used int64
		if err := rows.Scan(&v.ID, &v.Name, &tools, &signs, &v.Status, &created, &v.By, &used); err != nil {
			return out, err
		}
		if signs {
			v.Auth = "private_key_jwt"
		}
		v.Tools, v.Created = lines(tools), time.UnixMicro(created).UTC()
		if used != 0 {
			v.Used = time.UnixMicro(used).UTC()
		}
		out.Accounts = append(out.Accounts, v)
	}
	return out, rows.Err()
}

func (p *People) createService(tx *store.Tx, who principal.Principal, in createServiceIn) (out secretOut, err error) {
	name := strings.TrimSpace(in.Name)
	if name == "" || len([]rune(name)) > maxServiceName || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return out, serviceNameUnusable.New("a service account cannot be called %.80q", in.Name)
	}
	if err := p.usable(who, in.Tools); err != nil {
		return out, err
	}
	keys, err := publicKeys(in.JWKS)
	if err != nil {
		return out, err
	}
	var secret token.Split
	if keys == "" {
		secret = token.NewSplit("cs_")
	}
	out = secretOut{store.ID(principal.ServicePrefix), secret.Token}
	made, err := tx.One(`INSERT INTO service_account (id, workspace, name, tools, secret_hash, jwks, family, status, created_at, created_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', $8, $9) ON CONFLICT (workspace, name) DO NOTHING`,
		out.ID, who.Workspace, name, strings.Join(in.Tools, "\n"), secret.Hash, keys, token.NewFamilyID(), tx.Now, who.User)
	if err == nil && !made {
		err = serviceExists.New("there is a service account called %q", name)
	}
	p.recordService(tx, who, "service_account.create", out.ID, map[string]string{"name": name, "tools": strings.Join(in.Tools, " ")})
	return out, err
}

// usable judges a list of tools: each is here, and none is of a kind that no
// service account may call.
func (p *People) usable(who principal.Principal, names []string) error {
	if len(names) == 0 || len(names) > maxServiceTools {
		return serviceToolUnusable.New("the list of tools cannot be used").WithWhy("it names none, or more than %d", maxServiceTools)
	}
	for i, name := range names {
		t, there := p.Registry.Lookup(name)
		switch {
		case !there || t.ForeignTo(who):
			return serviceToolUnusable.New("%.128q cannot be on the list", name).WithWhy("there is no tool of this name")
		case t.Direct || t.MayCall() > principal.Admin:
			return serviceToolUnusable.New("%.128q cannot be on the list", name).WithWhy("it is for people acting directly, or for the owner")
		case slices.Contains(names[:i], name):
			return serviceToolUnusable.New("%.128q is on the list twice", name)
		}
	}
	return nil
}

// publicKeys are the keys as they are kept, without anything else that came with
// them; none is "".
func publicKeys(given map[string]any) (string, error) {
	if given == nil {
		return "", nil
	}
	document, err := json.Marshal(given)
	if err != nil {
		return "", err
	}
	set, err := jwks.Parse(document)
	if err != nil || set.Empty() || len(document) > maxServiceKeys {
		return "", serviceKeysUnusable.New("the keys cannot be used").Because(err)
	}
	kept, err := set.Document()
	return string(kept), err
}

func (p *People) changeService(tx *store.Tx, who principal.Principal, in changeServiceIn) (out serviceIn, err error) {
	if in.Tools == nil && in.Active == nil {
		return out, serviceToolUnusable.New("nothing of the service account would change").WithWhy("neither another list of tools was given, nor whether it is active")
	}
	if in.Tools != nil {
		if err := p.usable(who, in.Tools); err != nil {
			return out, err
		}
	}
	status := ""
	if in.Active != nil {
		status = map[bool]string{true: "active", false: "disabled"}[*in.Active]
	}
	list := strings.Join(in.Tools, "\n")
	err = p.renew(tx, who, in.ID, `tools = CASE WHEN $4 = '' THEN tools ELSE $4 END, status = CASE WHEN $5 = '' THEN status ELSE $5 END`, list, status)
	p.recordService(tx, who, "service_account.change", in.ID, map[string]string{"tools": strings.Join(in.Tools, " "), "status": status})
	return serviceIn{in.ID}, err
}

func (p *People) rotateService(tx *store.Tx, who principal.Principal, in serviceIn) (out secretOut, err error) {
	secret := token.NewSplit("cs_")
	err = p.renew(tx, who, in.ID, `jwks = $4, secret_hash = $5`, "", secret.Hash)
	p.recordService(tx, who, "service_account.rotate", in.ID, nil)
	return secretOut{in.ID, secret.Token}, err
}

// renew changes an account and ends its tokens: those that exist, and those that
// are being made by somebody who still saw it as it was, because they are of the
// old family as well.
func (p *People) renew(tx *store.Tx, who principal.Principal, id, set string, args ...any) error {
	a, found, err := p.anyService(tx, who.Workspace, id)
	if err != nil {
		return err
	}
	if !found {
		return serviceUnknown.New("there is no service account %.40q", id)
	}
	won, err := tx.One(`UPDATE service_account SET family = $1, `+set+` WHERE workspace = $2 AND id = $3 AND family = $6`,
		append([]any{token.NewFamilyID(), who.Workspace, id}, append(args, a.Family)...)...)
	if err == nil && !won {
		err = serviceUnknown.New("the service account %.40q was just changed by another", id)
	}
	if err != nil {
		return err
	}
	return p.Tokens.Revoke(tx, a.Family, token.AccessLife)
}

// removeService removes the account. Its id is revoked as well as its tokens: an
// account that is gone does not come back.
func (p *People) removeService(tx *store.Tx, who principal.Principal, in serviceIn) (serviceIn, error) {
	there, err := tx.One(`DELETE FROM service_account WHERE workspace = $1 AND id = $2`, who.Workspace, in.ID)
	if err == nil && !there {
		err = serviceUnknown.New("there is no service account %.40q", in.ID)
	}
	if err != nil {
		return in, err
	}
	p.recordService(tx, who, "service_account.remove", in.ID, nil)
	return in, p.Tokens.Revoke(tx, in.ID, token.AccessLife)
}

func (p *People) recordService(tx *store.Tx, who principal.Principal, action, id string, detail map[string]string) {
	p.Audit.Append(tx, audit.Event{
		Workspace: who.Workspace, Actor: who.Name(), Client: who.Client, Action: action, Target: id, Outcome: audit.Allowed, Detail: detail,
	})
}
