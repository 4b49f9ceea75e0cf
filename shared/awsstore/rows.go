package awsstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// The attributes of a row beside its key. The body is a string, not bytes, so that it can be read in the console.
const (
	versionName = "version"
	bodyName    = "body"
)

const maxBody = 300 << 10

// Rows is the table of a Store.
type Rows struct {
	client *dynamodb.Client
	table  string
}

// Get implements delta.Rows.
func (r *Rows) Get(ctx context.Context, key delta.Key) (delta.Row, error) {
	row, err := r.get(ctx, key)
	if err != nil {
		return delta.Row{}, fmt.Errorf("get row %s: %w", name(key), explain(err))
	}
	return row, nil
}

func (r *Rows) get(ctx context.Context, key delta.Key) (delta.Row, error) {
	if err := key.Check(); err != nil {
		return delta.Row{}, err
	}
	out, err := r.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &r.table, Key: item(key), ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
	})
	if err != nil {
		return delta.Row{}, err
	}
	if len(out.Item) == 0 {
		return delta.Row{}, delta.ErrNoRow
	}
	return parse(out.Item)
}

// GetMany implements delta.Rows. What the table leaves unprocessed is asked for again, with growing pauses, as long as ctx
// lets it.
func (r *Rows) GetMany(ctx context.Context, keys []delta.Key) ([]delta.Row, error) {
	rows, err := r.getMany(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("get %d rows: %w", len(keys), explain(err))
	}
	return rows, nil
}

func (r *Rows) getMany(ctx context.Context, keys []delta.Key) ([]delta.Row, error) {
	if len(keys) > 100 {
		return nil, errors.New("at most 100 at a time")
	}
	var ask []map[string]types.AttributeValue
	seen := make(map[delta.Key]bool, len(keys))
	for _, key := range keys {
		if err := key.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", name(key), err)
		}
		if !seen[key] { // the table refuses a key that comes twice
			seen[key] = true
			ask = append(ask, item(key))
		}
	}
	if len(ask) == 0 {
		return nil, ctx.Err()
	}
	rows := make([]delta.Row, 0, len(ask))
	left := map[string]types.KeysAndAttributes{r.table: {Keys: ask, ConsistentRead: aws.Bool(true)}}
	for pause := newPauses(); ; {
		out, err := r.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: left, ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal})
		if err != nil {
			return nil, err
		}
		for _, it := range out.Responses[r.table] {
			row, err := parse(it)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
		if left = out.UnprocessedKeys; len(left[r.table].Keys) == 0 {
			return rows, nil
		}
		if err := pause.wait(ctx); err != nil {
			return nil, fmt.Errorf("the table left %d of them unprocessed: %w", len(left[r.table].Keys), err)
		}
	}
}

// lastVersion is the newest version that this process gave to any row.
var lastVersion atomic.Int64

// newVersion returns the time in nanoseconds, or more: always more than before, also when the clock stands still or is set
// back. So no row is made again with a version that it had before it was deleted, whoever made it then: two processes would
// have to write in the very same nanosecond of their clocks.
func newVersion() int64 {
	for {
		last := lastVersion.Load()
		v := max(time.Now().UnixNano(), last+1)
		if lastVersion.CompareAndSwap(last, v) {
			return v
		}
	}
}

// errDoubt is the end of a conditional write of which an earlier try had no answer: it may or may not have taken effect.
var errDoubt = errors.New("an answer was lost on the way, and the row is another one by now: it may have been written and written over since; read it again")

// Put implements delta.Rows.
func (r *Rows) Put(ctx context.Context, row delta.Row) (int64, error) {
	version, err := r.put(ctx, row)
	if err != nil {
		return 0, fmt.Errorf("put row %s, version %d: %w", name(row.Key), row.Version, explain(err))
	}
	return version, nil
}

func (r *Rows) put(ctx context.Context, row delta.Row) (int64, error) {
	if err := checkRow(row); err != nil {
		return 0, err
	}
	if row.Version < 0 {
		return 0, errors.New("the version is negative")
	}
	read := row.Version
	row.Version = max(newVersion(), read+1) // another process's clock may have been ahead
	in := &dynamodb.PutItemInput{
		TableName: &r.table, Item: whole(row), ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if read == 0 {
		in.ConditionExpression, in.ExpressionAttributeNames = aws.String("attribute_not_exists(#p)"), map[string]string{"#p": PartKey}
	} else {
		in.ConditionExpression, in.ExpressionAttributeNames, in.ExpressionAttributeValues = isVersion(read)
	}
	watched, call := watch(ctx)
	_, err := r.client.PutItem(watched, in)
	var no *types.ConditionalCheckFailedException
	switch {
	case !errors.As(err, &no):
		return row.Version, err
	case !call.doubtful():
		return 0, delta.ErrStale
	}
	// The condition may have been broken by our own earlier try. What is there now tells: no other writer has our version and
	// our body.
	if there, err := parse(no.Item); err == nil && there.Version == row.Version && string(there.Body) == string(row.Body) {
		return row.Version, nil
	}
	return 0, errDoubt
}

// PutMany implements delta.Rows. Rows that the table leaves unprocessed are sent again, with growing pauses, as long as ctx
// lets it. Where an error is returned some rows may have been written.
func (r *Rows) PutMany(ctx context.Context, rows []delta.Row) error {
	if err := r.putMany(ctx, rows); err != nil {
		return fmt.Errorf("put %d rows: %w", len(rows), explain(err))
	}
	return nil
}

func (r *Rows) putMany(ctx context.Context, rows []delta.Row) error {
	if len(rows) > 25 {
		return errors.New("at most 25 at a time")
	}
	byKey := make(map[delta.Key]types.WriteRequest, len(rows)) // the table refuses a key that comes twice; the last one counts
	for _, row := range rows {
		if err := checkRow(row); err != nil {
			return fmt.Errorf("%s: %w", name(row.Key), err)
		}
		row.Version = newVersion()
		byKey[row.Key] = types.WriteRequest{PutRequest: &types.PutRequest{Item: whole(row)}}
	}
	if len(byKey) == 0 {
		return ctx.Err()
	}
	left := map[string][]types.WriteRequest{r.table: slices.Collect(maps.Values(byKey))}
	for pause := newPauses(); ; {
		out, err := r.client.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: left, ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal})
		if err != nil {
			return err
		}
		if left = out.UnprocessedItems; len(left[r.table]) == 0 {
			return nil
		}
		if err := pause.wait(ctx); err != nil {
			return fmt.Errorf("the table left %d of them unprocessed: %w", len(left[r.table]), err)
		}
	}
}

// Delete implements delta.Rows.
func (r *Rows) Delete(ctx context.Context, key delta.Key, version int64) error {
	if err := r.delete(ctx, key, version); err != nil {
		return fmt.Errorf("delete row %s, version %d: %w", name(key), version, explain(err))
	}
	return nil
}

func (r *Rows) delete(ctx context.Context, key delta.Key, version int64) error {
	if err := key.Check(); err != nil {
		return err
	}
	in := &dynamodb.DeleteItemInput{TableName: &r.table, Key: item(key), ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal}
	in.ConditionExpression, in.ExpressionAttributeNames, in.ExpressionAttributeValues = isVersion(version)
	watched, call := watch(ctx)
	_, err := r.client.DeleteItem(watched, in)
	var no *types.ConditionalCheckFailedException
	switch {
	case !errors.As(err, &no):
		return err
	case !call.doubtful():
		return delta.ErrStale
	}
	return errDoubt // a row that is gone does not tell who deleted it
}

// Range implements delta.Rows. One Query asks for one row more than the limit, so that it need not ask again whether there is
// any.
func (r *Rows) Range(ctx context.Context, part, prefix, after string, limit int) (_ []delta.Row, more bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("range over rows %s: %w", name(delta.Key{Part: part, Sort: prefix}), explain(err))
		}
	}()
	if err := checkLimit(limit); err != nil {
		return nil, false, err
	}
	whole := delta.Key{Part: part, Sort: cmp.Or(prefix, "-")} // a prefix may be empty
	if err := errors.Join(whole.Check(), checkText("after", after)); err != nil {
		return nil, false, err
	}
	// In printable ASCII nothing comes between a string and the same with a space behind it, and everything that begins
	// with a prefix comes before the prefix with a byte above '~'.
	from, to := max(prefix, after+" "), prefix+"\x7f"
	if from > to {
		return nil, false, ctx.Err()
	}
	in := &dynamodb.QueryInput{
		TableName: &r.table, ConsistentRead: aws.Bool(true), Limit: aws.Int32(int32(limit) + 1), ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
		KeyConditionExpression:    aws.String("#p = :p AND #s BETWEEN :from AND :to"),
		ExpressionAttributeNames:  map[string]string{"#p": PartKey, "#s": SortKey},
		ExpressionAttributeValues: map[string]types.AttributeValue{":p": text(part), ":from": text(from), ":to": text(to)},
	}
	var rows []delta.Row
	for {
		out, err := r.client.Query(ctx, in)
		if err != nil {
			return nil, false, err
		}
		for _, it := range out.Items {
			row, err := parse(it)
			if err != nil {
				return nil, false, err
			}
			rows = append(rows, row)
		}
		switch {
		case len(rows) > limit:
			return rows[:limit], true, nil
		case len(out.LastEvaluatedKey) == 0:
			return rows, false, nil
		case len(rows) > 1:
			// A megabyte is full, and whether anything follows the table does not say. The last row is left for the next page.
			return rows[:len(rows)-1], true, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// Scan implements delta.Rows. Next is the key of the last row that was looked at, whatever its partition.
func (r *Rows) Scan(ctx context.Context, prefix, from string, limit int) (_ []delta.Row, next string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("scan rows of %+q: %w", prefix, explain(err))
		}
	}()
	if err := errors.Join(checkLimit(limit), delta.Key{Part: prefix, Sort: "-"}.Check()); err != nil {
		return nil, "", err
	}
	in := &dynamodb.ScanInput{
		TableName: &r.table, ConsistentRead: aws.Bool(true), Limit: aws.Int32(int32(limit)), ReturnConsumedCapacity: types.ReturnConsumedCapacityTotal,
		FilterExpression:          aws.String("begins_with(#p, :p)"),
		ExpressionAttributeNames:  map[string]string{"#p": PartKey},
		ExpressionAttributeValues: map[string]types.AttributeValue{":p": text(prefix)},
	}
	if from != "" {
		part, sort, _ := strings.Cut(from, "\n") // neither half of a key has a line feed in it
		at := delta.Key{Part: part, Sort: sort}
		if at.Check() != nil {
			return nil, "", fmt.Errorf("%+q is no place in a scan", from)
		}
		in.ExclusiveStartKey = item(at)
	}
	out, err := r.client.Scan(ctx, in)
	if err != nil {
		return nil, "", err
	}
	var rows []delta.Row
	for _, it := range out.Items {
		row, err := parse(it)
		if err != nil {
			return nil, "", err
		}
		rows = append(rows, row)
	}
	if len(out.LastEvaluatedKey) > 0 {
		at, err := parseKey(out.LastEvaluatedKey)
		if err != nil {
			return nil, "", err
		}
		next = at.Part + "\n" + at.Sort
	}
	return rows, next, nil
}

// pauses grow from half a second to a few, with jitter.
type pauses struct {
	backoff *retry.ExponentialJitterBackoff
	n       int
}

func newPauses() *pauses { return &pauses{backoff: retry.NewExponentialJitterBackoff(maxBackoff)} }

// wait lets the next pause pass, or returns ctx's error.
func (p *pauses) wait(ctx context.Context) error {
	d, err := p.backoff.BackoffDelay(p.n, nil)
	if err != nil {
		return err
	}
	p.n++
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

// isVersion is the condition that a row has this version.
func isVersion(v int64) (*string, map[string]string, map[string]types.AttributeValue) {
	return aws.String("#v = :v"), map[string]string{"#v": versionName}, map[string]types.AttributeValue{":v": number(v)}
}

// item is a key as the table has it.
func item(k delta.Key) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{PartKey: text(k.Part), SortKey: text(k.Sort)}
}

// whole is a row as the table has it.
func whole(row delta.Row) map[string]types.AttributeValue {
	it := item(row.Key)
	it[versionName], it[bodyName] = number(row.Version), text(string(row.Body))
	return it
}

func parseKey(it map[string]types.AttributeValue) (delta.Key, error) {
	part, ok := it[PartKey].(*types.AttributeValueMemberS)
	sort, ok2 := it[SortKey].(*types.AttributeValueMemberS)
	if !ok || !ok2 {
		return delta.Key{}, fmt.Errorf("an item of the table lacks %s or %s; the table is not one of ours", PartKey, SortKey)
	}
	return delta.Key{Part: part.Value, Sort: sort.Value}, nil
}

func parse(it map[string]types.AttributeValue) (delta.Row, error) {
	key, err := parseKey(it)
	if err != nil {
		return delta.Row{}, err
	}
	version, ok := it[versionName].(*types.AttributeValueMemberN)
	body, ok2 := it[bodyName].(*types.AttributeValueMemberS)
	if !ok || !ok2 {
		return delta.Row{}, fmt.Errorf("row %s is damaged: it lacks %s or %s; restore the table to a moment before", name(key), versionName, bodyName)
	}
	row := delta.Row{Key: key, Body: []byte(body.Value)}
	if row.Version, err = strconv.ParseInt(version.Value, 10, 64); err != nil || row.Version < 1 {
		return delta.Row{}, fmt.Errorf("row %s is damaged: its %s is no whole number above 0; restore the table to a moment before", name(key), versionName)
	}
	return row, nil
}

func checkRow(row delta.Row) error {
	switch {
	case row.Body == nil:
		return errors.New("the row has no body")
	case len(row.Body) > maxBody:
		return fmt.Errorf("the body has %d bytes, at most %d are allowed", len(row.Body), maxBody)
	case !utf8.Valid(row.Body):
		return errors.New("the body is not UTF-8, so it is no JSON")
	}
	return row.Key.Check()
}

func checkLimit(limit int) error {
	if limit < 1 || limit > 1000 {
		return fmt.Errorf("limit %d is not between 1 and 1000", limit)
	}
	return nil
}

// checkText refuses what is not at most 500 bytes of printable ASCII.
func checkText(what, s string) error {
	if s == "" {
		return nil
	}
	if err := (delta.Key{Part: s, Sort: "-"}).Check(); err != nil {
		return fmt.Errorf("%s %+q is not at most 500 bytes of printable ASCII", what, s)
	}
	return nil
}

// name shows a key in an error.
func name(k delta.Key) string { return fmt.Sprintf("%+q/%+q", k.Part, k.Sort) }
