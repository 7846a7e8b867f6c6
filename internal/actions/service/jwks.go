package service

import (
	"encoding/json"
	"fmt"
)

// JWKS is the document of the public keys that sign ID tokens, for those who
// check them in this process.
func (s *Service) JWKS() ([]byte, error) {
	text, err := json.Marshal(s.keys.public())
	if err != nil {
		return nil, fmt.Errorf("write the public keys: %w", err)
	}
	return text, nil
}
