package rttest

import (
	"math/rand/v2"
	"os/exec"
	"syscall"
	"time"
)

// KillRandomly starts cmd, kills it with SIGKILL after a random time of at most within, and waits for it. killed tells
// whether it was still running then; err is that of a process that ended by itself, or of starting it.
func KillRandomly(cmd *exec.Cmd, rng *rand.Rand, within time.Duration) (after time.Duration, killed bool, err error) {
	after = time.Duration(rng.Int64N(int64(max(within, 1))))
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // children die with it
	if err := cmd.Start(); err != nil {
		return after, false, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case err := <-done:
		return after, false, err
	case <-timer.C:
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != nil {
		return after, false, <-done // it ended a moment ago
	}
	err = <-done
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL {
		return after, true, nil
	}
	return after, false, err
}
