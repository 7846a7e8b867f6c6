package project

import (
	"bytes"
	"crypto"
	"fmt"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

func newKey(t *testing.T) (entity *openpgp.Entity, public, id string) {
	t.Helper()
	entity, err := openpgp.NewEntity("Ada", "", "ada@contoso.com", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, DefaultHash: crypto.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := entity.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return entity, b.String(), fmt.Sprintf("%016X", entity.PrimaryKey.KeyId)
}

const (
	commitHead = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor Ada <ada@contoso.com> 1770000000 +0000\ncommitter Ada <ada@contoso.com> 1770000000 +0000\n"
	tagBody    = "object 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ntype commit\ntag v1\ntagger Ada <ada@contoso.com> 1770000000 +0000\n\nRelease\n"
)

func sign(t *testing.T, entity *openpgp.Entity, payload string) string {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, entity, strings.NewReader(payload), nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// signedCommit puts the signature where git does: more are headers after it.
func signedCommit(t *testing.T, entity *openpgp.Entity, more string) string {
	t.Helper()
	sig := strings.ReplaceAll(strings.TrimSpace(sign(t, entity, commitHead+more+"\nChange\n")), "\n", "\n ")
	return commitHead + "gpgsig " + sig + "\n" + more + "\nChange\n"
}

func TestVerify(t *testing.T) {
	ada, adaPublic, adaID := newKey(t)
	eve, evePublic, eveID := newKey(t)
	ring, errs := ParseKeyring(map[string]string{adaID: adaPublic, eveID: evePublic, "broken": "no key"})
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "key broken") {
		t.Errorf("bad keys: %v", errs)
	}
	stranger, _, _ := newKey(t)
	good := signedCommit(t, ada, "")
	for _, c := range []struct{ name, raw, want string }{
		{"commit", good, ""},
		{"commit with a header after the signature", signedCommit(t, ada, "encoding ISO-8859-1\n"), ""},
		{"tag", tagBody + sign(t, ada, tagBody), ""},
		{"changed commit", strings.Replace(good, "Change", "Chance", 1), "does not hold"},
		{"changed tree", strings.Replace(good, "tree 4b", "tree 4c", 1), "does not hold"},
		{"unsigned commit", commitHead + "\nChange\n", "not signed"},
		{"unsigned tag", tagBody, "not signed"},
		{"of a key that is not trusted", signedCommit(t, eve, ""), "signed by key " + eveID},
		{"of an unknown key", signedCommit(t, stranger, ""), "not imported"},
		{"ssh", commitHead + "gpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----\n\nChange\n", "not with GPG"},
		{"nonsense", commitHead + "gpgsig -----BEGIN PGP SIGNATURE-----\n nonsense\n\nChange\n", "does not hold"},
		{"empty", "", "not signed"},
	} {
		err := ring.Verify([]byte(c.raw), []string{adaID})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := ring.Verify([]byte(good), nil); err == nil {
		t.Error("without trusted keys a signature counts")
	}
}

func TestSignaturePolicies(t *testing.T) {
	const id = "ABCDEF0123456789"
	for _, c := range []struct {
		name, spec, url string
		keys            string
		required        bool
		err             string
	}{
		{"none", `{}`, "https://x", "", false, ""},
		{"older field", `signatureKeys: [{keyID: abcdef0123456789}]`, "https://x", id, true, ""},
		{"fingerprint", `signatureKeys: [{keyID: "0123 4567 89AB CDEF 0123 4567 ABCD EF01 2345 6789"}]`, "https://x", id, true, ""},
		{"policy", `sourceIntegrity: {git: {policies: [{repos: [{url: "https://x/*"}], gpg: {mode: head, keys: [ABCDEF0123456789]}}]}}`, "https://x/a/b", id, true, ""},
		{"policy for others", `sourceIntegrity: {git: {policies: [{repos: [{url: "https://x/*"}], gpg: {mode: head, keys: []}}]}}`, "https://y", "", false, ""},
		{"policy without keys", `sourceIntegrity: {git: {policies: [{repos: [{url: "*"}], gpg: {mode: head, keys: []}}]}}`, "https://y", "", true, ""},
		{"exception", `sourceIntegrity: {git: {policies: [{repos: [{url: "*"}, {url: "!https://y"}], gpg: {mode: head, keys: []}}]}}`, "https://y", "", false, ""},
		{"mode none", `sourceIntegrity: {git: {policies: [{repos: [{url: "*"}], gpg: {mode: none}}]}}`, "https://y", "", false, ""},
		{"two policies", `sourceIntegrity: {git: {policies: [{repos: [{url: "*"}], gpg: {mode: none}}, {repos: [{url: "*"}], gpg: {mode: head}}]}}`, "https://y", "", true, "2 policies"},
	} {
		keys, required, err := compile(t, c.spec).Signatures(c.url)
		if strings.Join(keys, " ") != c.keys || required != c.required || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v %v %v", c.name, keys, required, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(tagBody + "-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n"))
	f.Add([]byte(commitHead + "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iHUEABYKAB0=\n -----END PGP SIGNATURE-----\n\nx"))
	f.Add([]byte("gpgsig \n\n"))
	ring, _ := ParseKeyring(nil)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if ring.Verify(raw, []string{"ABCDEF0123456789"}) == nil {
			t.Errorf("%q is taken for signed", raw)
		}
	})
}
