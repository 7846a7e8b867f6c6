package azure

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/lockstep-gitops/lockstep/internal/csi/volume"
)

const (
	maxObjectsText = 256 << 10 // bytes of the objects parameter
	maxObjects     = 500       // objects of one class
)

// object is one entry of the objects parameter.
type object struct {
	Name           string `yaml:"objectName"`
	Alias          string `yaml:"objectAlias"`
	Version        string `yaml:"objectVersion"`
	VersionHistory int    `yaml:"objectVersionHistory"`
	Type           string `yaml:"objectType"`
	Format         string `yaml:"objectFormat"`
	Encoding       string `yaml:"objectEncoding"`
	FilePermission string `yaml:"filePermission"`
}

var objectKeys = []string{"objectName", "objectAlias", "objectVersion", "objectVersionHistory",
	"objectType", "objectFormat", "objectEncoding", "filePermission"}

// objectName is what Key Vault accepts as the name of an object.
var objectName = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)

var objectVersion = regexp.MustCompile(`^[0-9a-zA-Z]{1,64}$`)

// parseObjects reads the objects parameter: a YAML mapping with the key array,
// a list of strings that are YAML mappings themselves. It returns warnings
// about keys that mean nothing.
func parseObjects(text string) (objects []object, warnings []string, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil, errors.New("parameter objects is not set; list at least one object under array")
	}
	if len(text) > maxObjectsText {
		return nil, nil, fmt.Errorf("parameter objects is longer than %d KiB", maxObjectsText>>10)
	}
	var list struct {
		Array []yaml.Node `yaml:"array"`
	}
	if err := yaml.Unmarshal([]byte(text), &list); err != nil {
		return nil, nil, fmt.Errorf("parameter objects is not YAML of the form {array: [...]}: %w", err)
	}
	if len(list.Array) == 0 {
		return nil, nil, errors.New("parameter objects has no entries under array")
	}
	if len(list.Array) > maxObjects {
		return nil, nil, fmt.Errorf("parameter objects lists %d objects, more than %d", len(list.Array), maxObjects)
	}
	for i, node := range list.Array {
		o, warned, err := parseObject(node)
		if err != nil {
			return nil, nil, fmt.Errorf("parameter objects, line %d, entry %d: %w", node.Line, i+1, err)
		}
		for _, w := range warned {
			warnings = append(warnings, fmt.Sprintf("parameter objects, entry %d: %s", i+1, w))
		}
		if !slices.Contains(objects, o) { // the same entry twice is one
			objects = append(objects, o)
		}
	}
	return objects, warnings, checkNames(objects)
}

func parseObject(node yaml.Node) (o object, warnings []string, err error) {
	if node.Kind != yaml.ScalarNode {
		return o, nil, errors.New(`must be a string that holds YAML: write "- |" and the fields below it`)
	}
	if err := yaml.Unmarshal([]byte(node.Value), &o); err != nil {
		return o, nil, fmt.Errorf("is not a mapping: %w", err)
	}
	var keys map[string]yaml.Node
	if err := yaml.Unmarshal([]byte(node.Value), &keys); err != nil {
		return o, nil, fmt.Errorf("is not a mapping: %w", err)
	}
	for key := range keys {
		if !slices.Contains(objectKeys, key) {
			warnings = append(warnings, fmt.Sprintf("unknown key %q is ignored", key))
		}
	}
	slices.Sort(warnings)
	for _, s := range []*string{&o.Name, &o.Alias, &o.Version, &o.Type, &o.Format, &o.Encoding, &o.FilePermission} {
		*s = strings.TrimSpace(*s)
	}
	return o, warnings, o.check()
}

// check reports what is wrong with an object's fields, or not supported.
func (o object) check() error {
	if !objectName.MatchString(o.Name) {
		return fmt.Errorf("objectName %q must be 1 to 127 letters, digits and dashes", o.Name)
	}
	if o.Version != "" && !objectVersion.MatchString(o.Version) {
		return fmt.Errorf("%s: objectVersion %q is not a version of Key Vault", o.Name, o.Version)
	}
	switch o.Type {
	case "secret":
	case "key", "cert":
		return fmt.Errorf("%s: objectType %s is not supported yet, only secret is; a certificate's key and chain are also there as objectType secret", o.Name, o.Type)
	default:
		return fmt.Errorf("%s: objectType %q must be secret, key or cert", o.Name, o.Type)
	}
	if o.VersionHistory > 1 {
		return fmt.Errorf("%s: objectVersionHistory %d is not supported yet; leave it out to mount the latest version", o.Name, o.VersionHistory)
	}
	switch strings.ToLower(o.Format) {
	case "", "pem", "pfx":
	default:
		return fmt.Errorf("%s: objectFormat %q must be pem or pfx", o.Name, o.Format)
	}
	switch strings.ToLower(o.Encoding) {
	case "", "utf-8", "base64", "hex":
	default:
		return fmt.Errorf("%s: objectEncoding %q must be utf-8, base64 or hex", o.Name, o.Encoding)
	}
	if _, err := o.mode(0); err != nil {
		return err
	}
	return volume.CheckPath(o.file())
}

func checkNames(objects []object) error {
	by := make(map[string]object, len(objects))
	for _, o := range objects {
		if other, ok := by[o.file()]; ok {
			return fmt.Errorf("parameter objects: %s and %s would both be the file %q; give one an objectAlias", other.Name, o.Name, o.file())
		}
		by[o.file()] = o
	}
	return nil
}

// id names the object in a SecretProviderClassPodStatus.
func (o object) id() string { return o.Type + "/" + o.Name }

// file is the object's path in the volume.
func (o object) file() string {
	if o.Alias != "" {
		return o.Alias
	}
	return o.Name
}

func (o object) mode(preset fs.FileMode) (fs.FileMode, error) {
	if o.FilePermission == "" {
		return preset, nil
	}
	n, err := strconv.ParseUint(o.FilePermission, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("%s: filePermission %q must be octal, such as 0400, and at most 0777", o.Name, o.FilePermission)
	}
	return fs.FileMode(n), nil
}

// decode turns a secret's value into the file's content. Errors hold nothing
// of the value.
func (o object) decode(value string) ([]byte, error) {
	var data []byte
	var err error
	switch strings.ToLower(o.Encoding) {
	case "base64":
		data, err = base64.StdEncoding.DecodeString(value)
	case "hex":
		data, err = hex.DecodeString(value)
	default:
		data = []byte(value)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: the value is not %s, as objectEncoding says", o.Name, strings.ToLower(o.Encoding))
	}
	return data, nil
}
