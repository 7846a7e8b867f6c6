module github.com/contoso/storefront

go 1.26
