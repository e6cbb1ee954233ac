/* SPDX-License-Identifier: MIT */
/*
 * A gate that activity passes through: DMA, callbacks of a model, accesses to a device of the
 * kernel. Passing costs two atomic additions on a cache line that few threads share. Whoever moves
 * the gate waits until everything that passed it before has left, so a closed gate means that
 * nothing is under way (ARC-7), and what was replaced before a qsc_gate_sync() may be freed after
 * it.
 */
#ifndef QSC_BASE_GATE_H
#define QSC_BASE_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Openings of a gate; what OPEN_SOME lets through is for its owner to say. */
enum qsc_gate_mode { QSC_GATE_CLOSED, QSC_GATE_OPEN_SOME, QSC_GATE_OPEN };

#define QSC_GATE_SHARDS	     8
#define QSC_GATE_EPOCH_SHIFT 8

struct qsc_gate_shard {
	/* How many are inside, by the parity of the epoch in which they came. */
	_Alignas(64) _Atomic uint64_t inside[2];
};

struct qsc_gate {
	/* Epoch above QSC_GATE_EPOCH_SHIFT, mode below it; changes with every set and sync. */
	_Atomic uint64_t word;
	_Atomic bool awaited;	    /* someone sleeps until a shard is empty */
	pthread_mutex_t change;	    /* one change at a time */
	pthread_mutex_t sleep_lock; /* of `left` */
	pthread_cond_t left;
	struct qsc_gate_shard shards[QSC_GATE_SHARDS];
};

/* One who is inside. */
struct qsc_gate_pass {
	_Atomic uint64_t *inside;
};

/* Closed at first. Never fails. */
void qsc_gate_init(struct qsc_gate *gate);
/* Nobody is inside. */
void qsc_gate_destroy(struct qsc_gate *gate);

/*
 * Change the mode, and wait until all who passed before have left. Not from inside the gate. Those
 * who come later see the new mode, and everything that was written before the call.
 */
void qsc_gate_set(struct qsc_gate *gate, enum qsc_gate_mode mode);
/* The same without a change of mode. */
void qsc_gate_sync(struct qsc_gate *gate);

/* The mode at this moment, for who needs no promise. */
static inline enum qsc_gate_mode qsc_gate_mode(struct qsc_gate *gate)
{
	return (enum qsc_gate_mode)(atomic_load(&gate->word) & ((1U << QSC_GATE_EPOCH_SHIFT) - 1));
}

/* This thread's shard plus 1; 0 when it has none yet. */
extern _Thread_local unsigned int qsc_gate_shard_number __attribute__((tls_model("initial-exec")));
unsigned int qsc_gate_take_shard(void);
void qsc_gate_wake(struct qsc_gate *gate);

static inline void qsc_gate_leave_counter(struct qsc_gate *gate, _Atomic uint64_t *inside)
{
	/* Sequentially consistent against a sleeper that sets `awaited` and then looks inside. */
	atomic_fetch_sub(inside, 1);
	if (__builtin_expect(atomic_load(&gate->awaited), false))
		qsc_gate_wake(gate);
}

/*
 * Pass the gate. Returns its mode, which holds until the pass is given back, or QSC_GATE_CLOSED;
 * then there is no pass to give back. Never waits.
 */
static inline enum qsc_gate_mode qsc_gate_enter(struct qsc_gate *gate, struct qsc_gate_pass *pass)
{
	unsigned int number = qsc_gate_shard_number;
	uint64_t word = atomic_load_explicit(&gate->word, memory_order_relaxed);

	if (__builtin_expect(!number, false))
		number = qsc_gate_take_shard();
	for (;;) {
		_Atomic uint64_t *inside =
			&gate->shards[number - 1].inside[word >> QSC_GATE_EPOCH_SHIFT & 1];
		enum qsc_gate_mode mode = (enum qsc_gate_mode)(word &
							       ((1U << QSC_GATE_EPOCH_SHIFT) - 1));
		uint64_t again;

		/*
		 * Counted first, then looked again: who changes the word afterwards sees the count,
		 * and who changed it before is seen.
		 */
		atomic_fetch_add(inside, 1);
		again = atomic_load(&gate->word);
		if (again == word && mode != QSC_GATE_CLOSED) {
			pass->inside = inside;
			return mode;
		}
		qsc_gate_leave_counter(gate, inside);
		if (again == word)
			return QSC_GATE_CLOSED;
		word = again;
	}
}

static inline void qsc_gate_leave(struct qsc_gate *gate, struct qsc_gate_pass *pass)
{
	qsc_gate_leave_counter(gate, pass->inside);
}

#endif
