// Command deltadesk moves a help desk to another one while both stay open: the engine over a store on this machine.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	intake, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends the taking up of work; what has been taken up is finished. The second one ends the process.
	context.AfterFunc(intake, stop)
	os.Exit(run(intake, os.Args[1:], os.Stdout, os.Stderr))
}
