-- What people were asked, told from the events alone. The runs in which nobody was asked are passed by.
CREATE OR REPLACE VIEW approvals
(
    id String COMMENT 'Run, colon, key of the node (and item): POST /api/approvals/{id}/decision takes it',
    run_id String COMMENT 'Run that waits or waited',
    project LowCardinality(String) COMMENT 'Project of the run',
    workflow LowCardinality(String) COMMENT 'Workflow of the run',
    version UInt32 COMMENT 'Version of the workflow',
    node LowCardinality(String) COMMENT 'Node that waits or waited',
    item Int32 COMMENT 'Item of the node, from 0; -1 where it has none',
    status String COMMENT 'PENDING APPROVED REJECTED EXPIRED (nobody answered) or CANCELLED (the run ended)',
    requested_at DateTime64(3, 'UTC') COMMENT 'When it was asked for',
    decided_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When it was settled; NULL while it waits',
    waited_ms Nullable(Int64) COMMENT 'Milliseconds from asking to deciding; NULL while it waits',
    cause LowCardinality(String) COMMENT 'Who asks for it: workflow or agent',
    needed UInt32 COMMENT 'How many people have to agree',
    roles Array(String) COMMENT 'Roles of which one is needed to decide; empty: anybody may',
    deadline DateTime64(3, 'UTC') COMMENT 'When it is decided without them',
    on_deadline LowCardinality(String) COMMENT 'How it is decided then: reject or approve',
    attempt UInt32 COMMENT 'Attempt that the agent refused to make without; 0: none was made',
    inputs String COMMENT 'What the node would be given, JSON',
    answers Array(Tuple(seq UInt32, at Int64, event String)) COMMENT 'What people said, in order: the time (ms) and the event'
)
AS SELECT
    concat(run_id, ':', node, if(item < 0, '', concat('.', toString(item)))) AS id,
    run_id,
    project,
    workflow,
    version,
    node,
    item,
    outcome.2 AS status,
    asked_at AS requested_at,
    if(outcome.2 = 'PENDING', NULL, outcome.1) AS decided_at,
    dateDiff('millisecond', requested_at, decided_at) AS waited_ms,
    JSONExtractString(request, 'cause')::LowCardinality(String) AS cause,
    JSONExtractUInt(request, 'needed')::UInt32 AS needed,
    JSONExtract(request, 'roles', 'Array(String)') AS roles,
    fromUnixTimestamp64Milli(JSONExtractInt(request, 'deadline'), 'UTC') AS deadline,
    JSONExtractString(request, 'onDeadline')::LowCardinality(String) AS on_deadline,
    JSONExtractUInt(request, 'attempt')::UInt32 AS attempt,
    JSONExtractRaw(request, 'inputs') AS inputs,
    said AS answers
FROM
(
    SELECT
        run_id,
        project,
        workflow,
        version,
        node,
        item,
        minIf(at, type = 'node.approvalRequested') AS asked_at,
        anyIf(payload, type = 'node.approvalRequested') AS request,
        arraySort(groupUniqArrayIf((seq, toUnixTimestamp64Milli(at), payload), type IN ('node.approved', 'node.rejected'))) AS said,
        -- The first event that settles it.
        argMinIf(
            (at, multiIf(type = 'node.approved', 'APPROVED', type = 'node.rejected', 'REJECTED', type = 'node.failed', 'EXPIRED', 'CANCELLED')),
            seq,
            type IN ('node.rejected', 'node.failed', 'node.cancelled')
            OR type = 'node.approved' AND JSONExtractUInt(payload, 'missing') = 0
        ) AS settled,
        if(settled.2 = '', (asked_at, 'PENDING'), settled) AS outcome
    FROM events
    WHERE run_id IN (SELECT run_id FROM events WHERE type = 'node.approvalRequested')
        AND type IN ('node.approvalRequested', 'node.approved', 'node.rejected', 'node.failed', 'node.cancelled')
    GROUP BY run_id, project, workflow, version, node, item
    HAVING countIf(type = 'node.approvalRequested') > 0
)
COMMENT 'One row for each time that people were asked to agree'
