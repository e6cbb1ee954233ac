/* SPDX-License-Identifier: MIT */
/* Unit tests of the state machine: every path of every flag set, and what each arc does. */
#include "runtime/test_model.h"

static const uint32_t flag_sets[] = {1, 3, 5, 7};

/* ARC-1 to ARC-4: every request from every state, against the contract's walk. */
static void test_every_request_follows_the_contract(void **unused)
{
	for (size_t f = 0; f < 4; f++) {
		struct test_device *device = test_new(flag_sets[f]);

		for (uint32_t from = 1; from < QSC_STATE_COUNT; from++) {
			/* A load cannot be left by itself; see the tests of sessions. */
			if (!qsc_state_exists(flag_sets[f], from) || from == QSC_STATE_RESUMING)
				continue;
			for (uint32_t to = 0; to < QSC_STATE_COUNT + 1; to++) {
				bool refused = qsc_contract_next(flag_sets[f], from, to) < 0;
				uint64_t session = 1;

				assert_int_equal(qsc_device_reset(device->dev), 0);
				test_go(device, from);
				assert_int_equal(qsc_device_set_state(device->dev, to, &session),
						 refused ? -EINVAL : 0);
				assert_int_equal(test_now(device), refused ? from : to);
			}
		}
		test_end(device);
	}
}

static void test_a_new_device_runs(void **unused)
{
	struct test_device *device = test_new(7);

	assert_int_equal(test_now(device), QSC_STATE_RUNNING);
	assert_int_equal(device->resets, 1);
	assert_int_equal(device->starts, 1);
	test_go(device, QSC_STATE_STOP);
	assert_int_equal(device->stops, 1);
	test_go(device, QSC_STATE_RUNNING_P2P);
	assert_int_equal(device->starts, 1);
	test_go(device, QSC_STATE_RUNNING);
	assert_int_equal(device->starts, 2);
	test_go(device, QSC_STATE_PRE_COPY);
	assert_int_equal(device->starts, 2);
	test_end(device);
}

/* DEV-7: all ones and no effect while stopped; works in the P2P states. */
static void test_registers_of_a_stopped_device(void **unused)
{
	static const enum qsc_state stopped[] = {QSC_STATE_STOP, QSC_STATE_STOP_COPY};
	struct test_device *device = test_new(7);

	test_poke(device, REG_SCRATCH, 42);
	for (size_t i = 0; i < 2; i++) {
		test_go(device, stopped[i]);
		assert_int_equal(test_peek(device, REG_SCRATCH), UINT64_MAX);
		test_poke(device, REG_SCRATCH, 43);
		test_go(device, QSC_STATE_RUNNING_P2P);
		assert_int_equal(test_peek(device, REG_SCRATCH), 42);
	}
	test_poke(device, REG_SCRATCH, 44);
	test_go(device, QSC_STATE_RUNNING);
	assert_int_equal(test_peek(device, REG_SCRATCH), 44);
	test_end(device);
}

/* ARC-5, ARC-6: a stop() or start() that fails leaves ERROR, and only a reset leads out. */
static void test_a_failing_model_ends_in_error(void **unused)
{
	struct test_device *device = test_new(3);
	uint64_t session;

	device->fail_stop = EIO;
	assert_int_equal(qsc_device_set_state(device->dev, QSC_STATE_STOP, &session), -EIO);
	assert_int_equal(test_now(device), QSC_STATE_ERROR);
	for (uint32_t to = 0; to <= QSC_STATE_COUNT; to++)
		assert_int_equal(qsc_device_set_state(device->dev, to, &session), -EINVAL);
	assert_int_equal(test_peek(device, REG_SCRATCH), UINT64_MAX);
	device->fail_stop = 0;
	assert_int_equal(qsc_device_reset(device->dev), 0);
	assert_int_equal(test_now(device), QSC_STATE_RUNNING);
	test_go(device, QSC_STATE_STOP);
	device->fail_start = ENXIO;
	assert_int_equal(qsc_device_set_state(device->dev, QSC_STATE_RUNNING, &session), -ENXIO);
	assert_int_equal(test_now(device), QSC_STATE_ERROR);
	test_end(device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_request_follows_the_contract),
		cmocka_unit_test(test_a_new_device_runs),
		cmocka_unit_test(test_registers_of_a_stopped_device),
		cmocka_unit_test(test_a_failing_model_ends_in_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
