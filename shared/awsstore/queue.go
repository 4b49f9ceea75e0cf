package awsstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// Queue is the queue of a Store.
type Queue struct {
	client *sqs.Client
	url    string
}

// Send implements delta.Queue. Messages that the queue did not take through no fault of theirs are sent again, with growing
// pauses, as long as ctx lets it. A delay is rounded up to whole seconds.
func (q *Queue) Send(ctx context.Context, ms []delta.Message, delay time.Duration) error {
	if err := q.send(ctx, ms, delay); err != nil {
		return fmt.Errorf("send %d messages: %w", len(ms), explain(err))
	}
	return nil
}

func (q *Queue) send(ctx context.Context, ms []delta.Message, delay time.Duration) error {
	switch {
	case len(ms) > 10:
		return errors.New("at most 10 at a time")
	case delay < 0 || delay > 15*time.Minute:
		return fmt.Errorf("the delay is %s; want at most 15 minutes", delay)
	case len(ms) == 0:
		return ctx.Err()
	}
	left := make([]types.SendMessageBatchRequestEntry, len(ms))
	for i, m := range ms {
		body, err := json.Marshal(m)
		if err != nil {
			return err
		}
		left[i] = types.SendMessageBatchRequestEntry{
			Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(string(body)), DelaySeconds: int32((delay + time.Second - 1) / time.Second),
		}
	}
	for pause := newPauses(); ; {
		out, err := q.client.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: &q.url, Entries: left})
		if err != nil {
			return err
		}
		again := left[:0:0]
		for _, f := range out.Failed {
			i, err := strconv.Atoi(aws.ToString(f.Id))
			if err != nil || i < 0 || i >= len(ms) {
				return fmt.Errorf("the queue refused a message %+q, which was not sent", aws.ToString(f.Id))
			}
			if f.SenderFault {
				return fmt.Errorf("the queue refused the message for run %s page %d entry %d: %s", ms[i].Run, ms[i].Page, ms[i].Seq, aws.ToString(f.Code))
			}
			for _, e := range left {
				if aws.ToString(e.Id) == aws.ToString(f.Id) {
					again = append(again, e)
				}
			}
		}
		if left = again; len(left) == 0 {
			return nil
		}
		if err := pause.wait(ctx); err != nil {
			return fmt.Errorf("the queue did not take %d of them: %w", len(left), err)
		}
	}
}

// maxMessage is far above what a message of ours has: ids and numbers.
const maxMessage = 4 << 10

// ParseMessage reads the body of a message as Send wrote it. Anything else is an error, also an unknown or missing member:
// such a message is not ours, or of another version of the program. The error does not repeat the body.
func ParseMessage(body string) (delta.Message, error) {
	m, err := parseMessage(body)
	if err != nil {
		return delta.Message{}, fmt.Errorf("message of %d bytes: %w", len(body), err)
	}
	return m, nil
}

func parseMessage(body string) (m delta.Message, err error) {
	if len(body) > maxMessage {
		return m, fmt.Errorf("at most %d are allowed", maxMessage)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(body), &members); err != nil {
		return m, errors.New("it is no JSON object")
	}
	for name, into := range map[string]any{"m": &m.Migration, "r": &m.Run, "p": &m.Page, "s": &m.Seq, "t": &m.Sent} {
		raw, ok := members[name]
		if !ok || string(raw) == "null" {
			return m, fmt.Errorf("it lacks the member %q", name)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return m, fmt.Errorf("its member %q has the wrong form", name)
		}
		delete(members, name)
	}
	switch {
	case len(members) > 0:
		return m, fmt.Errorf("it has %d members that no message of ours has", len(members))
	case m.Migration == "":
		return m, errors.New("it names no migration")
	case m.Page < 0 || m.Seq < 0 || m.Sent < 0:
		return m, errors.New("a number in it is negative")
	}
	return m, nil
}
