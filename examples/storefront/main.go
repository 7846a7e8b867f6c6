// Storefront is a small shop front: one page that greets its visitors and says
// which version answers and whether its secret from Key Vault is there.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// greeting is what visitors read first. Change it, commit, push.
const greeting = "Welcome to the storefront"

// version is set by the build: the commit that the image was built from.
var version = "development"

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	if err := run(log); err != nil {
		log.Error("storefront ended", "error", err)
		os.Exit(1)
	}
}

// run serves until SIGTERM, then lets open requests finish.
func run(log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	shop := Shop{
		Greeting:   greeting,
		Version:    version,
		SecretFile: envOr("SECRET_FILE", "/mnt/secrets/payment-key"),
	}
	server := &http.Server{
		Addr:              envOr("LISTEN", ":8080"),
		Handler:           shop.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	log.Info("storefront listens", "address", server.Addr, "version", version)

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}
