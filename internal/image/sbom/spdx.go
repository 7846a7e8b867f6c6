package sbom

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// Subject is the image that a document is about.
type Subject struct {
	Name    string // "storefront.azurecr.io/web"
	Digest  string // "sha256:…"
	Created time.Time
	Tool    string // that made the document, "lockstep-1.2.3"
}

// PredicateType names SPDX documents in attestations.
const PredicateType = "https://spdx.dev/Document"

const unknown = "NOASSERTION"

// SPDX writes the inventory as an SPDX 2.3 document in JSON. The same input
// gives the same bytes.
func (inv Inventory) SPDX(s Subject) ([]byte, error) {
	image := &v2_3.Package{
		PackageName: s.Name, PackageSPDXIdentifier: "Image", PackageVersion: s.Digest, PackageDownloadLocation: unknown,
		PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown, PackageCopyrightText: unknown, PrimaryPackagePurpose: "CONTAINER",
		PackageExternalReferences: []*v2_3.PackageExternalReference{reference(ociURL(s))},
		PackageComment:            strings.Join(inv.Notes, "\n"),
	}
	doc := &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: s.Name,
		DocumentNamespace: "https://" + s.Name + "/sbom/" + strings.TrimPrefix(s.Digest, "sha256:"),
		CreationInfo: &v2_3.CreationInfo{
			Created: s.Created.UTC().Format(time.RFC3339), Creators: []common.Creator{{CreatorType: "Tool", Creator: s.Tool}},
		},
		Packages:      []*v2_3.Package{image},
		Relationships: []*v2_3.Relationship{relation("DOCUMENT", "DESCRIBES", "Image")},
	}
	if inv.Distribution != "" {
		doc.Packages = append(doc.Packages, &v2_3.Package{
			PackageName: inv.Distribution, PackageSPDXIdentifier: "OperatingSystem", PackageVersion: inv.Release, PackageDownloadLocation: unknown,
			PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown, PackageCopyrightText: unknown, PrimaryPackagePurpose: "OPERATING-SYSTEM",
		})
		doc.Relationships = append(doc.Relationships, relation("Image", "CONTAINS", "OperatingSystem"))
	}
	for _, p := range inv.Packages {
		id := identifier(p)
		doc.Packages = append(doc.Packages, &v2_3.Package{
			PackageName: p.Name, PackageSPDXIdentifier: id, PackageVersion: p.Version, PackageDownloadLocation: unknown, PackageSourceInfo: "found in " + p.Found,
			PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown, PackageCopyrightText: unknown, PackageLicenseComments: p.License,
			PackageExternalReferences: []*v2_3.PackageExternalReference{reference(p.PURL(inv.Distribution))},
		})
		doc.Relationships = append(doc.Relationships, relation("Image", "CONTAINS", string(id)))
	}
	var out bytes.Buffer
	if err := json.Write(doc, &out); err != nil {
		return nil, fmt.Errorf("write the SPDX document: %w", err)
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

func reference(purl string) *v2_3.PackageExternalReference {
	return &v2_3.PackageExternalReference{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl}
}

// ociURL is the package URL of an image (purl-spec, type oci).
func ociURL(s Subject) string {
	name := s.Name[strings.LastIndexByte(s.Name, '/')+1:]
	return "pkg:oci/" + name + "@" + strings.Replace(s.Digest, ":", "%3A", 1) + "?repository_url=" + s.Name
}

func relation(from, kind, to string) *v2_3.Relationship {
	return &v2_3.Relationship{RefA: common.MakeDocElementID("", from), RefB: common.MakeDocElementID("", to), Relationship: kind}
}

// identifier is unique in a document, and the same in each: SPDX wants letters,
// digits, dots and hyphens.
func identifier(p Package) common.ElementID {
	sum := sha256.Sum256(fmt.Append(nil, p.Type, "\x00", p.Name, "\x00", p.Version, "\x00", p.Arch, "\x00", p.License))
	return common.ElementID("Package-" + p.Type + "-" + hex.EncodeToString(sum[:8]))
}
