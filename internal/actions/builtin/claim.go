package builtin

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// claim reads a text of a JWT's payload, to show it; nothing is verified.
func claim(token, name string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	claims := map[string]any{}
	if err := json.Unmarshal(data, &claims); err != nil {
		return ""
	}
	text, _ := claims[name].(string)
	return text
}

// basicAuth is the value of a Basic authorization.
func basicAuth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}
