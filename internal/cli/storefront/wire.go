package storefront

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// send makes the request and reads its answer, at most maxAnswer bytes.
func send(client *http.Client, req *http.Request) (int, []byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", req.Method, req.URL, err)
	}
	return resp.StatusCode, body, nil
}

// explain turns an error answer of Azure's or GitHub's form into one line.
func explain(status int, body []byte) string {
	var answer struct {
		Message string
		Error   struct{ Code, Message string }
	}
	text := strings.TrimSpace(string(body))
	if json.Unmarshal(body, &answer) == nil {
		switch {
		case answer.Error.Message != "":
			text = answer.Error.Code + ": " + answer.Error.Message
		case answer.Message != "":
			text = answer.Message
		}
	}
	if len(text) > 400 {
		text = text[:400] + "…"
	}
	return fmt.Sprintf("status %d: %s", status, text)
}

// decodeClaims reads the claims of a token that was just received from its
// issuer; the signature is the issuer's business.
func decodeClaims(token string, into any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("not a JSON web token")
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("not a JSON web token: %w", err)
	}
	return json.Unmarshal(data, into)
}
