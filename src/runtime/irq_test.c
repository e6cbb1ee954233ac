/* SPDX-License-Identifier: MIT */
/* Unit tests of interrupts: each is delivered once, now or later, and setting them up. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/vfio.h>

#include <cmocka.h>

#include "base/fd.h"
#include "runtime/irq.h"

static const uint32_t counts[QSC_IRQ_INDICES] = {1, 1, 4};

static int new_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}

static int set_up(struct qsc_irqs *irqs, uint32_t index, uint32_t vector, int fd)
{
	const struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = index,
		.start = vector,
		.count = 1,
		.fds = &fd,
	};

	return qsc_irqs_set(irqs, &set);
}

static int act(struct qsc_irqs *irqs, uint32_t index, uint32_t vector, uint32_t action)
{
	const struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_NONE | action,
		.index = index,
		.start = vector,
		.count = 1,
	};

	return qsc_irqs_set(irqs, &set);
}

static void test_DEV_6_held_and_delivered_once(void **unused)
{
	struct qsc_irq_counts seen;
	struct qsc_irqs irqs;
	int fd = new_eventfd();
	int late = new_eventfd();

	assert_int_equal(qsc_irqs_init(&irqs, counts), 0);
	assert_int_equal(set_up(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 1, fd), 0);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 1);
	assert_int_equal(qsc_eventfd_drain(fd), 1);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 2); /* not set up: nothing */

	qsc_irqs_set_mode(&irqs, QSC_VERDICT_HOLD);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 1);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 1);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 3);
	assert_int_equal(act(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 1, VFIO_IRQ_SET_ACTION_TRIGGER), 0);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	assert_true(qsc_irqs_pending(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 1));
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_ALLOW);
	assert_int_equal(qsc_eventfd_drain(fd), 3);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_HOLD);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_ALLOW);
	assert_int_equal(qsc_eventfd_drain(fd), 0);

	/* Held for a vector that has no eventfd yet. */
	assert_true(qsc_irqs_pending(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 3));
	assert_int_equal(set_up(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 3, late), 0);
	assert_int_equal(qsc_eventfd_drain(late), 1);
	assert_false(qsc_irqs_pending(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 3));

	qsc_irqs_count(&irqs, &seen);
	assert_int_equal(seen.delivered, 5);
	assert_int_equal(seen.held, 4);

	qsc_irqs_set_mode(&irqs, QSC_VERDICT_DROP);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 1);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_ALLOW);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	close(fd);
	close(late);
	qsc_irqs_destroy(&irqs);
}

static void test_setting_up(void **unused)
{
	const struct qsc_irq_set down = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
	};
	struct qsc_irqs irqs;
	int fd = new_eventfd();
	int pipes[2];

	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(qsc_irqs_init(&irqs, counts), 0);
	assert_int_equal(set_up(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 4, fd), -EINVAL);
	assert_int_equal(set_up(&irqs, VFIO_PCI_ERR_IRQ_INDEX, 0, fd), -EINVAL);
	assert_int_equal(set_up(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, pipes[1]), -EINVAL);
	assert_int_equal(set_up(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, 9999), -EINVAL);
	assert_int_equal(act(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, VFIO_IRQ_SET_ACTION_MASK), -ENOTTY);
	assert_int_equal(act(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, 0), -EINVAL);
	assert_int_equal(set_up(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, fd), 0);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	assert_int_equal(qsc_eventfd_drain(fd), 1);
	assert_int_equal(qsc_irqs_set(&irqs, &down), 0);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	qsc_irqs_raise(&irqs, 99, 0);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 99);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
	qsc_irqs_destroy(&irqs);
}

/* The line is masked by its delivery, and raised again meanwhile it comes once after the unmask. */
static void test_intx_is_masked_by_delivery(void **unused)
{
	struct qsc_irqs irqs;
	int fd = new_eventfd();

	assert_int_equal(qsc_irqs_init(&irqs, counts), 0);
	assert_int_equal(set_up(&irqs, VFIO_PCI_INTX_IRQ_INDEX, 0, fd), 0);
	for (int i = 0; i < 4; i++)
		qsc_irqs_raise(&irqs, VFIO_PCI_INTX_IRQ_INDEX, 0);
	assert_int_equal(qsc_eventfd_drain(fd), 1);
	assert_int_equal(act(&irqs, VFIO_PCI_INTX_IRQ_INDEX, 0, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(qsc_eventfd_drain(fd), 1);
	assert_int_equal(act(&irqs, VFIO_PCI_INTX_IRQ_INDEX, 0, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	close(fd);
	qsc_irqs_destroy(&irqs);
}

/* An asserted line comes again with every unmask, until it is no longer asserted. */
static void test_an_asserted_line_comes_again(void **unused)
{
	struct qsc_irqs irqs;
	int fd = new_eventfd();

	assert_int_equal(qsc_irqs_init(&irqs, counts), 0);
	qsc_irqs_set_line(&irqs, true);
	/* It counts from when there is somebody to tell. */
	assert_int_equal(set_up(&irqs, VFIO_PCI_INTX_IRQ_INDEX, 0, fd), 0);
	assert_int_equal(qsc_eventfd_drain(fd), 1);
	qsc_irqs_set_line(&irqs, true);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(act(&irqs, VFIO_PCI_INTX_IRQ_INDEX, 0, VFIO_IRQ_SET_ACTION_UNMASK),
				 0);
		assert_int_equal(qsc_eventfd_drain(fd), 1);
	}
	/* DEV-2, DEV-6 */
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_HOLD);
	assert_int_equal(act(&irqs, VFIO_PCI_INTX_IRQ_INDEX, 0, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_ALLOW);
	assert_int_equal(qsc_eventfd_drain(fd), 1);
	qsc_irqs_set_line(&irqs, false);
	assert_int_equal(act(&irqs, VFIO_PCI_INTX_IRQ_INDEX, 0, VFIO_IRQ_SET_ACTION_UNMASK), 0);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	/* A reset lets go of it, and so does a load. */
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_HOLD);
	qsc_irqs_set_line(&irqs, true);
	qsc_irqs_forget(&irqs);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_ALLOW);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_HOLD);
	qsc_irqs_set_line(&irqs, true);
	qsc_irqs_load(&irqs, NULL, 0);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_ALLOW);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	close(fd);
	qsc_irqs_destroy(&irqs);
}

/* DEV-8: a load replaces what the device had held, not what the user asked for during the load. */
static void test_load_keeps_what_the_user_triggered(void **unused)
{
	const struct qsc_irq_held loaded[] = {{VFIO_PCI_MSIX_IRQ_INDEX, 2, 5}};
	struct qsc_irq_held saved[4];
	struct qsc_irqs irqs;

	assert_int_equal(qsc_irqs_init(&irqs, counts), 0);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_HOLD);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	assert_int_equal(act(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, VFIO_IRQ_SET_ACTION_TRIGGER), 0);
	qsc_irqs_load_begin(&irqs);
	assert_int_equal(act(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 1, VFIO_IRQ_SET_ACTION_TRIGGER), 0);
	assert_int_equal(act(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 2, VFIO_IRQ_SET_ACTION_TRIGGER), 0);
	qsc_irqs_load(&irqs, loaded, 1);
	assert_int_equal(qsc_irqs_save(&irqs, saved, 4), 2);
	assert_int_equal(saved[0].vector, 1);
	assert_int_equal(saved[0].count, 1);
	assert_int_equal(saved[1].vector, 2);
	assert_int_equal(saved[1].count, 6);
	qsc_irqs_forget(&irqs);
	assert_int_equal(qsc_irqs_save(&irqs, saved, 4), 0);
	qsc_irqs_destroy(&irqs);
}

/* A user who hands over a blocking eventfd that is full stops nobody, and it stays full. */
static void test_a_full_eventfd_does_not_block(void **unused)
{
	struct qsc_irqs irqs;
	int fd = eventfd(0, EFD_CLOEXEC);

	assert_int_equal(qsc_eventfd_signal(fd, UINT64_MAX - 1), 0);
	assert_int_equal(qsc_irqs_init(&irqs, counts), 0);
	assert_int_equal(set_up(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, fd), 0);
	(void)alarm(20);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	(void)alarm(0);
	assert_int_equal(qsc_eventfd_drain(fd), UINT64_MAX);
	qsc_irqs_destroy(&irqs);
	close(fd);
}

/* There is room for one, two are held: nobody waits for ever. */
static void test_a_nearly_full_eventfd_does_not_block(void **unused)
{
	struct qsc_irqs irqs;
	int fd = eventfd(0, EFD_CLOEXEC);

	assert_int_equal(qsc_irqs_init(&irqs, counts), 0);
	assert_int_equal(set_up(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, fd), 0);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_HOLD);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	assert_int_equal(qsc_eventfd_signal(fd, UINT64_MAX - 2), 0);
	(void)alarm(20);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_ALLOW);
	(void)alarm(0);
	assert_int_equal(qsc_eventfd_drain(fd), UINT64_MAX);
	assert_false(qsc_irqs_pending(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0));
	qsc_irqs_destroy(&irqs);
	close(fd);
}

static void test_what_is_held_is_bounded(void **unused)
{
	const struct qsc_irq_held loaded[] = {{VFIO_PCI_MSIX_IRQ_INDEX, 0, QSC_IRQ_MAX_HELD}};
	struct qsc_irq_held saved;
	struct qsc_irqs irqs;
	int fd = new_eventfd();

	assert_int_equal(qsc_irqs_init(&irqs, counts), 0);
	assert_int_equal(set_up(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, fd), 0);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_HOLD);
	for (uint32_t i = 0; i < QSC_IRQ_MAX_HELD + 5; i++)
		qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	assert_int_equal(qsc_irqs_save(&irqs, &saved, 1), 1);
	assert_int_equal(saved.count, QSC_IRQ_MAX_HELD);
	qsc_irqs_load_begin(&irqs);
	qsc_irqs_load(&irqs, NULL, 0);
	assert_int_equal(act(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 0, VFIO_IRQ_SET_ACTION_TRIGGER), 0);
	qsc_irqs_load(&irqs, loaded, 1);
	assert_int_equal(qsc_irqs_save(&irqs, &saved, 1), 1);
	assert_int_equal(saved.count, QSC_IRQ_MAX_HELD);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_ALLOW);
	assert_int_equal(qsc_eventfd_drain(fd), QSC_IRQ_MAX_HELD);
	qsc_irqs_destroy(&irqs);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_DEV_6_held_and_delivered_once),
		cmocka_unit_test(test_setting_up),
		cmocka_unit_test(test_intx_is_masked_by_delivery),
		cmocka_unit_test(test_an_asserted_line_comes_again),
		cmocka_unit_test(test_a_full_eventfd_does_not_block),
		cmocka_unit_test(test_a_nearly_full_eventfd_does_not_block),
		cmocka_unit_test(test_what_is_held_is_bounded),
		cmocka_unit_test(test_load_keeps_what_the_user_triggered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
