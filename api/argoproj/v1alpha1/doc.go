// Package v1alpha1 holds the kinds of argoproj.io/v1alpha1, with the same JSON
// as Argo CD: Application and AppProject.
//
// Input: objects as the API server stores them. Output: typed values to read.
// Fields that are not modelled here are kept by the API server (the CRDs
// preserve unknown fields) and survive because nothing writes whole objects
// back: Lockstep patches only what it changes.
//
// Start reading at [Application]; the CRDs are in [CRDs].
package v1alpha1
