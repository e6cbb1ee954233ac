/* SPDX-License-Identifier: MIT */
/* Unit tests of the gate: what a change waits for, and what it does not. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/gate.h"

static void test_modes(void **unused)
{
	struct qsc_gate gate;
	struct qsc_gate_pass pass = {NULL};

	qsc_gate_init(&gate);
	assert_int_equal(qsc_gate_enter(&gate, &pass), QSC_GATE_CLOSED);
	qsc_gate_set(&gate, QSC_GATE_OPEN_SOME);
	assert_int_equal(qsc_gate_enter(&gate, &pass), QSC_GATE_OPEN_SOME);
	qsc_gate_leave(&gate, &pass);
	qsc_gate_set(&gate, QSC_GATE_OPEN);
	qsc_gate_sync(&gate);
	assert_int_equal(qsc_gate_mode(&gate), QSC_GATE_OPEN);
	assert_int_equal(qsc_gate_enter(&gate, &pass), QSC_GATE_OPEN);
	qsc_gate_leave(&gate, &pass);
	qsc_gate_set(&gate, QSC_GATE_CLOSED);
	assert_int_equal(qsc_gate_enter(&gate, &pass), QSC_GATE_CLOSED);
	qsc_gate_destroy(&gate);
}

struct inside {
	struct qsc_gate gate;
	_Atomic bool closed;
	_Atomic bool left;
};

static void *close_gate(void *arg)
{
	struct inside *inside = arg;

	qsc_gate_set(&inside->gate, QSC_GATE_CLOSED);
	assert_true(atomic_load(&inside->left));
	atomic_store(&inside->closed, true);
	return NULL;
}

/* The change waits for who is inside; who comes meanwhile is refused and holds nothing up. */
static void test_a_change_waits_for_those_inside(void **unused)
{
	struct inside inside;
	struct qsc_gate_pass pass = {NULL};
	struct qsc_gate_pass other = {NULL};
	pthread_t thread;

	memset(&inside, 0, sizeof(inside));
	qsc_gate_init(&inside.gate);
	qsc_gate_set(&inside.gate, QSC_GATE_OPEN);
	assert_int_equal(qsc_gate_enter(&inside.gate, &pass), QSC_GATE_OPEN);
	assert_int_equal(pthread_create(&thread, NULL, close_gate, &inside), 0);
	while (qsc_gate_mode(&inside.gate) != QSC_GATE_CLOSED)
		sched_yield();
	assert_int_equal(qsc_gate_enter(&inside.gate, &other), QSC_GATE_CLOSED);
	assert_false(atomic_load(&inside.closed));
	atomic_store(&inside.left, true);
	qsc_gate_leave(&inside.gate, &pass);
	pthread_join(thread, NULL);
	assert_true(atomic_load(&inside.closed));
	qsc_gate_destroy(&inside.gate);
}

struct traffic {
	struct qsc_gate gate;
	_Atomic(_Atomic int *) current;
	_Atomic uint64_t inside;
	_Atomic uint64_t passed;
	_Atomic bool end;
};

static void *pass_gate(void *arg)
{
	struct traffic *traffic = arg;
	struct qsc_gate_pass pass = {NULL};

	while (!atomic_load(&traffic->end)) {
		if (qsc_gate_enter(&traffic->gate, &pass) == QSC_GATE_CLOSED) {
			sched_yield();
			continue;
		}
		atomic_fetch_add(&traffic->inside, 1);
		assert_int_equal(atomic_load(atomic_load(&traffic->current)), 1);
		atomic_fetch_sub(&traffic->inside, 1);
		qsc_gate_leave(&traffic->gate, &pass);
		atomic_fetch_add(&traffic->passed, 1);
	}
	return NULL;
}

/* Nobody is inside a closed gate, and nobody sees what was replaced before a sync. */
static void test_changes_under_traffic(void **unused)
{
	struct traffic traffic;
	_Atomic int values[2] = {1, 0};
	pthread_t threads[3];

	memset(&traffic, 0, sizeof(traffic));
	qsc_gate_init(&traffic.gate);
	atomic_store(&traffic.current, &values[0]);
	qsc_gate_set(&traffic.gate, QSC_GATE_OPEN);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, pass_gate, &traffic), 0);
	for (unsigned int i = 0; i < 300 || atomic_load(&traffic.passed) < 1000; i++) {
		_Atomic int *next = &values[(i + 1) % 2];

		atomic_store(next, 1);
		atomic_store(&traffic.current, next);
		qsc_gate_sync(&traffic.gate);
		atomic_store(&values[i % 2], 0);
		if (i % 3)
			continue;
		qsc_gate_set(&traffic.gate, QSC_GATE_CLOSED);
		assert_int_equal(atomic_load(&traffic.inside), 0);
		qsc_gate_set(&traffic.gate, i % 2 ? QSC_GATE_OPEN : QSC_GATE_OPEN_SOME);
	}
	atomic_store(&traffic.end, true);
	for (size_t i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	qsc_gate_destroy(&traffic.gate);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_a_change_waits_for_those_inside),
		cmocka_unit_test(test_changes_under_traffic),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
