/**
 * Messages as the public documentation of CockroachDB (v25.4) shows them, word for word but for line breaks; each names its page under
 * src/current/v25.4 of cockroachdb/docs.
 */

/** changefeed-messages.md, "At-least-once delivery": with duplicates after a pause, in the order of their arrival. */
export const EMPLOYEES: readonly string[] = [
  '{"after": {"id": 1, "name": "Terry", "office": "new york city"}, "key": [1], "updated": "1701102296662969433.0000000000"}',
  '{"after": {"id": 1, "name": "Terri", "office": "new york city"}, "key": [1], "updated": "1701102311425045162.0000000000"}',
  '{"after": {"id": 2, "name": "Alex", "office": "los angeles"}, "key": [2], "updated": "1701102305519323705.0000000000"}',
  '{"after": {"id": 3, "name": "Ash", "office": "london"}, "key": [3], "updated": "1701102316388801052.0000000000"}',
  '{"after": {"id": 1, "name": "Terrence", "office": "new york city"}, "key": [1], "updated": "1701102320607990564.0000000000"}',
  '{"after": {"id": 3, "name": "Ash", "office": "london"}, "key": [3], "updated": "1701102316388801052.0000000000"}',
  '{"after": {"id": 1, "name": "Terrence", "office": "new york city"}, "key": [1], "updated": "1701102320607990564.0000000000"}',
  '{"after": {"id": 2, "name": "Alex", "office": "new york city"}, "key": [2], "updated": "1701102325724272373.0000000000"}',
  '{"after": {"id": 5, "name": "Robbie", "office": "london"}, "key": [5], "updated": "1701102330377135318.0000000000"}',
  '{"after": {"id": 4, "name": "Danny", "office": "los angeles"}, "key": [4], "updated": "1701102561022789676.0000000000"}',
]

/** changefeed-sinks.md, "Webhook sink messages": one of a batch's payload. */
export const VEHICLE =
  '{"after":{"city":"rome","creation_time":"2019-01-02T03:04:05","current_location":"39141 Travis Curve Suite 87","ext":{"brand":"Schwinn","color":"red"},' +
  '"id":"d7b18299-c0c4-4304-9ef7-05ae46fd5ee1","dog_owner_id":"5d0c85b5-8866-47cf-a6bc-d032f198e48f","status":"in_use","type":"bike"},' +
  '"key":["rome","d7b18299-c0c4-4304-9ef7-05ae46fd5ee1"],"topic":"vehicles","updated":"1629813621680097993.0000000000"}'

/** changefeed-message-envelopes.md, "Enable full-fidelity message envelopes"; its schema shortened. */
export const FULL_FIDELITY = `{
  "payload": {
    "after": {
      "category": "Home & Kitchen", "created_at": "2025-04-30T20:02:35.40316", "description": "Ceramic mug with 350ml capacity",
      "id": "98879aa0-72bc-4b12-a128-325a4753162e", "in_stock": true, "name": "Coffee Mug", "price": 12.50
    },
    "before": {
      "category": "Home & Kitchen", "created_at": "2025-04-30T20:02:35.40316", "description": "Ceramic mug with 350ml capacity",
      "id": "98879aa0-72bc-4b12-a128-325a4753162e", "in_stock": true, "name": "Coffee Mug", "price": 12.50
    },
    "key": { "id": "98879aa0-72bc-4b12-a128-325a4753162e" },
    "op": "u",
    "source": {
      "changefeed_sink": "kafka", "cluster_id": "585e6512-ea54-490a-8f1d-50c8d182a2e6", "cluster_name": "", "database_name": "test",
      "db_version": "v25.2.0-beta.2", "job_id": "1072079179268751361", "mvcc_timestamp": "1747243394200039000.0000000000", "node_id": "1",
      "node_name": "localhost", "origin": "cockroachdb", "primary_keys": ["id"], "schema_name": "public", "source_node_locality": "",
      "table_name": "products", "ts_hlc": "1747243394200039000.0000000000", "ts_ns": 1747243394200039000
    },
    "ts_ns": 1747243394886231000
  },
  "schema": { "fields": [], "name": "cockroachdb.envelope", "optional": false, "type": "struct" }
}`

/** changefeed-message-envelopes.md, "Audit changes in data": an insert with diff; without updated. */
export const INSERT_WITH_DIFF = `{
  "after": {
    "category": "Electronics", "created_at": "2025-04-23T13:48:40.981735", "description": "Over-ear headphones with active noise cancellation",
    "id": "3d8f4ca4-36e9-43b2-b057-d691624a4cba", "in_stock": true, "name": "Noise Cancelling Headphones", "price": 129.50
  },
  "before": null
}`

/** changefeed-messages.md, "Delete messages". */
export const DELETE = { key: '[5]', value: '{"after": null}' }

/** changefeed-messages.md, "JSON": with encode_json_value_null_as_object. */
export const JSON_NULLS: readonly string[] = [
  '{"after": {"data": null, "id": 1}, "key": [1]}',
  '{"after": {"data": {"__crdb_json_null__": true}, "id": 2}, "key": [2]}',
]
