package forge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

func pkt(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }

func FuzzReadRefCommands(f *testing.F) {
	a, z := strings.Repeat("a", 40), strings.Repeat("0", 40)
	f.Add([]byte(pkt(z+" "+a+" refs/heads/main\x00report-status side-band-64k agent=git/2.39\n") + pkt(a+" "+z+" refs/tags/v1") + "0000PACKrest"))
	f.Add([]byte(pkt("shallow "+a) + pkt(z+" "+a+" refs/heads/x\x00 report-status") + "0000"))
	f.Add([]byte("0000"))
	f.Add([]byte("0001"))
	f.Add([]byte("0004"))
	f.Add([]byte("fff0short"))
	f.Add([]byte("zzzz"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReader(bytes.NewReader(data))
		list, err := readRefCommands(in)
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(in)
		if !bytes.Equal(append(list.Raw, rest...), data) {
			t.Fatal("bytes of the push got lost or were made up")
		}
		for _, c := range list.Commands {
			if !strings.HasPrefix(c.Ref, "refs/") || strings.ContainsAny(c.Ref, " \n\x00") || len(c.Old) != 40 || len(c.New) != 40 || c.Old == c.New && c.Old == z {
				t.Fatalf("%+v", c)
			}
		}
		// What is answered must be whole packets.
		answer := list.refusal("because")
		for len(answer) > 0 {
			var n int
			if _, err := fmt.Sscanf(string(answer[:4]), "%04x", &n); err != nil || n > len(answer) || n > maxPktLine {
				t.Fatalf("answer %q", answer)
			}
			answer = answer[max(n, 4):]
		}
	})
}

func FuzzParseGraphQL(f *testing.F) {
	f.Add(`query Q($a: [String!]! = ["x"], $b: Int = -1.5e3) @d(x: 1) { a: viewer(x: {y: [1, null, true, ENUM, $a]}) { login ...f ... on User { id } } } fragment f on User { name } # c`)
	f.Add(`mutation { createRepository(input: {name: "\u0041\""}) { repository { id } } }`)
	f.Add("{{{")
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := parseGraphQL(text)
		if err == nil && len(doc.operations) == 0 {
			t.Fatal("a document without operations")
		}
	})
}
