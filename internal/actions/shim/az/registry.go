package az

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/lockstep-gitops/lockstep/internal/actions/shim"
	"github.com/lockstep-gitops/lockstep/internal/actions/shim/docker"
)

// tokenUser is the user name with which a token is given as the password.
const tokenUser = "00000000-0000-0000-0000-000000000000"

func registryCommands() map[string]command {
	const kind, version = "Microsoft.ContainerRegistry/registries", "2023-07-01"
	flags := shim.Flags{shim.F("--name", "-n"), shim.F("--resource-group", "-g"), shim.F("--ids"), shim.B("--expose-token", "-t"), shim.F("--suffix")}
	contents := shim.Flags{shim.F("--name", "-n"), shim.F("--repository"), shim.F("--image", "-t"), shim.F("--top"), shim.F("--orderby"), shim.B("--detail"), shim.F("--suffix"),
		shim.F("--username", "-u"), shim.F("--password", "-p")}
	return map[string]command{
		"acr login": {flags, acrLogin},
		"acr list":  {flags, func(ctx context.Context, c *call) (any, error) { return c.listOf(ctx, kind, version, true) }},
		"acr show":  {flags, func(ctx context.Context, c *call) (any, error) { return c.show(ctx, kind, version, true) }},
		"acr build": {shim.Flags{shim.F("--registry", "-r"), shim.M("--image", "-t"), shim.F("--file", "-f"), shim.F("--platform"), shim.F("--target"), shim.F("--build-arg"),
			shim.F("--secret-build-arg"), shim.F("--resource-group", "-g"), shim.B("--no-push"), shim.B("--no-logs"), shim.B("--no-format"), shim.B("--no-wait"), shim.F("--timeout"), shim.F("--agent-pool")}, acrBuild},
		"acr import": {shim.Flags{shim.F("--name", "-n"), shim.F("--source"), shim.M("--image", "-t"), shim.B("--force"), shim.F("--registry", "-r"), shim.F("--resource-group", "-g"),
			shim.F("--username", "-u"), shim.F("--password", "-p"), shim.B("--no-wait"), shim.F("--repository")}, acrImport},
		"acr repository list":           {contents, repositoryList},
		"acr repository show":           {contents, repositoryShow},
		"acr repository show-tags":      {contents, repositoryTags},
		"acr repository show-manifests": {contents, repositoryManifests},
		"acr manifest list-metadata":    {contents, repositoryManifests},
	}
}

// loginServer is the host of a registry, by name or host.
func loginServer(registry string) string {
	if strings.Contains(registry, ".") {
		return strings.ToLower(registry)
	}
	return strings.ToLower(registry) + ".azurecr.io"
}

// refreshToken trades the login for one at the registry.
func (c *call) refreshToken(ctx context.Context, host string) (string, error) {
	t, err := c.token(ctx, armURL+"/.default")
	if err != nil {
		return "", err
	}
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	form := url.Values{"grant_type": {"access_token"}, "service": {host}, "tenant": {c.profile.TenantID}, "access_token": {t.Value}}
	_, err = c.Do(ctx, http.MethodPost, "https://"+host+"/oauth2/exchange", nil, form, &answer)
	return answer.RefreshToken, err
}

func acrLogin(ctx context.Context, c *call) (any, error) {
	if err := c.need("name"); err != nil {
		return nil, err
	}
	host := loginServer(c.Get("name"))
	token, err := c.refreshToken(ctx, host)
	if err != nil {
		return nil, err
	}
	if c.On("expose-token") {
		return map[string]string{"accessToken": token, "loginServer": host, "username": tokenUser, "refreshToken": token}, nil
	}
	if err := docker.StoreLogin(c.Process, host, tokenUser, token); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(c.Stdout, "Login Succeeded")
	return nil, err
}

// acrBuild is a build on this machine that is pushed to the registry.
func acrBuild(ctx context.Context, c *call) (any, error) {
	if err := c.need("registry", "image"); err != nil {
		return nil, err
	}
	host := loginServer(c.Get("registry"))
	token, err := c.refreshToken(ctx, host)
	if err != nil {
		return nil, err
	}
	if err := docker.StoreLogin(c.Process, host, tokenUser, token); err != nil {
		return nil, err
	}
	args := []string{"build"}
	if !c.On("no-push") {
		args = append(args, "--push")
	}
	images := c.All("image")
	rest := c.Rest
	if len(rest) == 0 && len(images) > 1 { // az takes the last word as the place
		rest, images = images[len(images)-1:], images[:len(images)-1]
	}
	for _, image := range images {
		image = strings.NewReplacer("{{.Run.ID}}", "local", "{{.Run.Registry}}/", "").Replace(image)
		args = append(args, "--tag", host+"/"+strings.TrimPrefix(image, host+"/"))
	}
	for option, flag := range map[string]string{"file": "--file", "platform": "--platform", "target": "--target"} {
		if v := c.Get(option); v != "" {
			args = append(args, flag, v)
		}
	}
	for _, a := range append(slices.Clone(c.All("build-arg")), c.All("secret-build-arg")...) {
		args = append(args, "--build-arg", a)
	}
	if len(rest) != 1 {
		return nil, shim.Usagef("az acr build needs one source location")
	}
	process := *c.Process
	process.Args = append(args, rest[0])
	if code := docker.Main(ctx, &process); code != 0 {
		return nil, errors.New("the build failed")
	}
	return nil, nil
}

// remoteOptions reach a registry with the login.
func (c *call) remoteOptions(ctx context.Context, host string) ([]remote.Option, error) {
	auth := authn.Anonymous
	if strings.HasSuffix(host, ".azurecr.io") {
		user, password := c.Get("username"), c.Get("password")
		if user == "" {
			token, err := c.refreshToken(ctx, host)
			if err != nil {
				return nil, err
			}
			user, password = tokenUser, token
		}
		auth = &authn.Basic{Username: user, Password: password}
	} else if user := c.Get("username"); user != "" {
		auth = &authn.Basic{Username: user, Password: c.Get("password")}
	}
	return []remote.Option{remote.WithContext(ctx), remote.WithAuth(auth), remote.WithTransport(c.Client().Transport)}, nil
}

// acrImport copies an image between registries.
func acrImport(ctx context.Context, c *call) (any, error) {
	if err := c.need("name", "source"); err != nil {
		return nil, err
	}
	text := c.Get("source")
	if r := c.Get("registry"); r != "" && !strings.Contains(strings.Split(text, "/")[0], ".") {
		text = loginServer(r[strings.LastIndexByte(r, '/')+1:]) + "/" + text
	}
	from, err := name.ParseReference(text)
	if err != nil {
		return nil, shim.Usagef("--source %q is no image: %v", text, err)
	}
	host := loginServer(c.Get("name"))
	images := c.All("image")
	if len(images) == 0 {
		images = []string{strings.TrimPrefix(strings.SplitN(text, "/", 2)[1], "library/")}
	}
	readers, err := c.remoteOptions(ctx, from.Context().RegistryStr())
	if err != nil {
		return nil, err
	}
	found, err := remote.Get(from, readers...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", text, err)
	}
	writer := *c
	writer.Parsed = shim.Parsed{} // the user name is the source's
	writers, err := writer.remoteOptions(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, image := range images {
		to, err := name.ParseReference(host + "/" + image)
		if err != nil {
			return nil, shim.Usagef("--image %q is no image: %v", image, err)
		}
		if _, err := remote.Head(to, writers...); err == nil && !c.On("force") {
			return nil, fmt.Errorf("(Conflict) Tag %s already exists in target registry", image)
		}
		if found.MediaType.IsIndex() {
			index, ierr := found.ImageIndex()
			if err = ierr; err == nil {
				err = remote.WriteIndex(to, index, writers...)
			}
		} else {
			img, ierr := found.Image()
			if err = ierr; err == nil {
				err = remote.Write(to, img, writers...)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("import %s as %s: %w", text, to, err)
		}
	}
	return nil, nil
}

func repositoryList(ctx context.Context, c *call) (any, error) {
	if err := c.need("name"); err != nil {
		return nil, err
	}
	host := loginServer(c.Get("name"))
	options, err := c.remoteOptions(ctx, host)
	if err != nil {
		return nil, err
	}
	registry, err := name.NewRegistry(host)
	if err != nil {
		return nil, err
	}
	list, err := remote.Catalog(ctx, registry, options...)
	return slices.Concat([]string{}, list), err
}

// repository is the one that --repository or --image names.
func (c *call) repository(ctx context.Context) (name.Repository, []remote.Option, error) {
	if err := c.need("name"); err != nil {
		return name.Repository{}, nil, err
	}
	host := loginServer(c.Get("name"))
	repo := orElse(c.Get("repository"), strings.Split(c.Get("image"), ":")[0])
	if repo == "" && len(c.Rest) == 1 {
		repo = c.Rest[0]
	}
	r, err := name.NewRepository(host + "/" + repo)
	if err != nil {
		return r, nil, shim.Usagef("--repository %q is not valid: %v", repo, err)
	}
	options, err := c.remoteOptions(ctx, host)
	return r, options, err
}

func repositoryShow(ctx context.Context, c *call) (any, error) {
	r, options, err := c.repository(ctx)
	if err != nil {
		return nil, err
	}
	if image := c.Get("image"); image != "" {
		ref, err := name.ParseReference(r.RegistryStr() + "/" + image)
		if err != nil {
			return nil, shim.Usagef("--image %q: %v", image, err)
		}
		d, err := remote.Head(ref, options...)
		if err != nil {
			return nil, err
		}
		return map[string]any{"digest": d.Digest.String(), "name": ref.Identifier(), "mediaType": d.MediaType}, nil
	}
	list, err := remote.List(r, options...)
	if err != nil {
		return nil, err
	}
	return map[string]any{"imageName": r.RepositoryStr(), "registry": r.RegistryStr(), "tagCount": len(list)}, nil
}

func repositoryTags(ctx context.Context, c *call) (any, error) {
	r, options, err := c.repository(ctx)
	if err != nil {
		return nil, err
	}
	list, err := remote.List(r, options...)
	if err != nil {
		return nil, err
	}
	slices.Sort(list)
	if strings.HasSuffix(c.Get("orderby"), "desc") {
		slices.Reverse(list)
	}
	return c.top(list), nil
}

// top cuts a list to --top.
func (c *call) top(list []string) []string {
	n := len(list)
	if t := c.Get("top"); t != "" {
		_, _ = fmt.Sscan(t, &n)
	}
	return slices.Concat([]string{}, list[:max(0, min(n, len(list)))])
}

func repositoryManifests(ctx context.Context, c *call) (any, error) {
	r, options, err := c.repository(ctx)
	if err != nil {
		return nil, err
	}
	list, err := remote.List(r, options...)
	if err != nil {
		return nil, err
	}
	slices.Sort(list)
	tags := map[string][]string{}
	var order []string
	for _, t := range list {
		d, err := remote.Head(r.Tag(t), options...)
		if err != nil {
			return nil, err
		}
		if tags[d.Digest.String()] == nil {
			order = append(order, d.Digest.String())
		}
		tags[d.Digest.String()] = append(tags[d.Digest.String()], t)
	}
	out := []any{}
	for _, digest := range c.top(order) {
		out = append(out, map[string]any{"digest": digest, "tags": tags[digest]})
	}
	return out, nil
}
