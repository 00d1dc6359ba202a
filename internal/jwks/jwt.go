package jwks

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	strictjson "github.com/go-json-experiment/json"
)

// MaxJWT is how many bytes a JWT may have. Those of platforms that list groups
// come close to half of it.
const MaxJWT = 16 << 10

// Skew is how far the clock of somebody else may be from ours.
const Skew = 30 * time.Second

// JWT is one whose signature nobody has looked at yet.
type JWT struct {
	Type   string // typ, in lower case and without the prefix application/
	Issuer string // claimed: good to find the keys and for nothing else

	alg, kid, raw string
}

// header is what is read of the header. Members that name keys (jku, jwk, x5u, x5c)
// are not among it: whoever signs does not say by which key we judge.
type header struct {
	Alg  string          `json:"alg"`
	Kid  string          `json:"kid"`
	Type string          `json:"typ"`
	Crit json.RawMessage `json:"crit"`
}

// Read takes a JWT in compact form apart (RFC 7519 §7.2, steps 1 to 5). An error
// is for the log.
func Read(raw string) (JWT, error) {
	parts := strings.SplitN(raw, ".", 4)
	if len(raw) > MaxJWT || len(parts) != 3 {
		return JWT{}, errors.New("it is no signed JWT, or too long")
	}
	var h header
	var claimed struct {
		Issuer string `json:"iss"`
	}
	if !decoded(parts[0], &h) || !decoded(parts[1], &claimed) {
		return JWT{}, errors.New("its header or its claims cannot be read")
	}
	if !slices.Contains(Algorithms, h.Alg) || h.Crit != nil {
		return JWT{}, errors.New("its algorithm or its extensions are not accepted")
	}
	typ := strings.TrimPrefix(strings.ToLower(h.Type), "application/")
	return JWT{Type: typ, Issuer: claimed.Issuer, alg: h.Alg, kid: h.Kid, raw: raw}, nil
}

// decoded reads a part of a JWT strictly: a member that is there twice could be
// read as another by somebody else.
func decoded(part string, into any) bool {
	plain, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && strictjson.Unmarshal(plain, into) == nil
}

// Verify finds a key of the set by which the signature is good, and says what was
// signed. Whether that is acceptable is for Claims.Judge and the caller.
func (j JWT) Verify(s Set) (Claims, error) {
	alg := jose.SignatureAlgorithm(j.alg)
	for _, key := range s.keys {
		if j.kid != "" && key.KeyID != j.kid || !slices.Contains(algorithms(key), alg) {
			continue
		}
		signed, err := jose.ParseSignedCompact(j.raw, []jose.SignatureAlgorithm{alg})
		if err != nil {
			return Claims{}, errors.New("it is no signed JWT")
		}
		if payload, err := signed.Verify(key.Key); err == nil {
			return ParseClaims(payload)
		}
	}
	return Claims{}, errors.New("no key of its issuer verifies the signature")
}

// Claims are those of a JWT whose signature was good.
type Claims struct {
	Issuer, Subject, ID string
	Audience            []string
	Expires             int64 // seconds since 1970; 0 if absent
	Issued, NotBefore   int64
	All                 map[string]any // also these; the numbers as float64
}

// ParseClaims reads claims that somebody vouches for in another way than by a
// signature, such as the answer of an introspection (RFC 7662 §2.2).
func ParseClaims(payload []byte) (Claims, error) {
	var all map[string]any
	if strictjson.Unmarshal(payload, &all) != nil || all == nil {
		return Claims{}, errors.New("its claims are not an object with members of different names")
	}
	c := Claims{All: all}
	for name, into := range map[string]*string{"iss": &c.Issuer, "sub": &c.Subject, "jti": &c.ID} {
		if !text(all[name], into) {
			return Claims{}, errors.New("one of iss, sub and jti is no text")
		}
	}
	for name, into := range map[string]*int64{"exp": &c.Expires, "iat": &c.Issued, "nbf": &c.NotBefore} {
		if !seconds(all[name], into) {
			return Claims{}, errors.New("one of exp, iat and nbf is no time")
		}
	}
	ok := false
	if c.Audience, ok = texts(all["aud"]); !ok {
		return Claims{}, errors.New("aud is neither text nor a list of texts")
	}
	return c, nil
}

// text reads a claim that is absent or text.
func text(claim any, into *string) (ok bool) {
	if claim == nil {
		return true
	}
	*into, ok = claim.(string)
	return ok
}

// seconds reads a NumericDate (RFC 7519 §2): there may be a fraction, and it is
// after 1970 and before the year in which numbers stop being exact.
func seconds(claim any, into *int64) bool {
	if claim == nil {
		return true
	}
	n, ok := claim.(float64)
	*into = int64(math.Floor(n))
	return ok && n >= 1 && n < 1<<40
}

// texts reads a claim that is absent, text, or a list of texts.
func texts(claim any) (list []string, ok bool) {
	switch v := claim.(type) {
	case nil:
		return nil, true
	case string:
		return []string{v}, true
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			list = append(list, s)
		}
		return list, true
	}
	return nil, false
}

// Only reports whether the audience is this one and no other. A JWT that is for
// several could be used by one of them at another.
func (c Claims) Only(audience string) bool {
	return audience != "" && len(c.Audience) == 1 && c.Audience[0] == audience
}

// Judge reports what is wrong with the times: the JWT must expire, it must not have
// done so, and not be for longer than life from now. The clock may differ by Skew.
func (c Claims) Judge(now time.Time, life time.Duration) error {
	switch soon := now.Add(Skew).Unix(); {
	case c.Expires == 0:
		return errors.New("it never expires")
	case now.Add(-Skew).Unix() >= c.Expires:
		return errors.New("it has expired")
	case c.Expires > now.Add(life+Skew).Unix():
		return errors.New("it lives too long")
	case c.NotBefore > soon || c.Issued > soon:
		return errors.New("it is from the future")
	}
	return nil
}
