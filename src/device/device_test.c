/* SPDX-License-Identifier: MIT */
/* The calls of the interface: what is wrong for any device never reaches one. */
#include <errno.h>
#include <limits.h>
#include <linux/vfio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include <quiesce/device.h>

/* A device that accepts everything and counts it. */
struct yes {
	struct qsc_device device;
	unsigned int calls;
	int answer;
	uint64_t session;
	struct qsc_irq_set irqs;
	uint8_t wrote[4];
};

static struct yes *yes_of(struct qsc_device *dev)
{
	return (struct yes *)(void *)dev;
}

static int answer(struct qsc_device *dev)
{
	yes_of(dev)->calls++;
	return yes_of(dev)->answer;
}

static ssize_t yes_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			       size_t count)
{
	(void)answer(dev);
	return (ssize_t)count;
}

/* Refuses offset 13. */
static ssize_t yes_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				const void *buf, size_t count)
{
	struct yes *yes = yes_of(dev);

	(void)answer(dev);
	if (offset == 13)
		return -EPERM;
	if (offset < sizeof(yes->wrote))
		yes->wrote[offset] = *(const uint8_t *)buf;
	return (ssize_t)count;
}

static int yes_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			  int prot, void **addr)
{
	*addr = dev;
	return answer(dev);
}

static int yes_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	yes_of(dev)->irqs = *set;
	return answer(dev);
}

static int yes_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	return answer(dev);
}

static int yes_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	return answer(dev);
}

static int yes_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	*session = yes_of(dev)->session;
	return answer(dev);
}

static int yes_log_start(struct qsc_device *dev, uint64_t *page_size,
			 const struct qsc_dma_range *ranges, size_t num_ranges)
{
	return answer(dev);
}

static int yes_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			  uint64_t *bitmap)
{
	return answer(dev);
}

static ssize_t yes_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	return answer(dev);
}

static ssize_t yes_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				 size_t size)
{
	return answer(dev);
}

static int yes_session_close(struct qsc_device *dev, uint64_t session)
{
	return answer(dev);
}

static int yes_precopy_info(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	return answer(dev);
}

static void yes_close(struct qsc_device *dev)
{
	(void)answer(dev);
}

static const struct qsc_device_ops yes_ops = {
	.kind = "yes",
	.region_read = yes_region_read,
	.region_write = yes_region_write,
	.region_map = yes_region_map,
	.set_irqs = yes_set_irqs,
	.dma_map = yes_dma_map,
	.dma_unmap = yes_dma_unmap,
	.set_state = yes_set_state,
	.log_start = yes_log_start,
	.log_report = yes_log_report,
	.session_read = yes_session_read,
	.session_write = yes_session_write,
	.session_precopy_info = yes_precopy_info,
	.session_close = yes_session_close,
	.close = yes_close,
};

static const struct qsc_device_ops no_ops = {.kind = "no"};

/* The call reaches the device, or it does not. */
#define ACCEPTED(call)                          \
	do {                                    \
		yes.calls = 0;                  \
		assert_true((call) >= 0);       \
		assert_int_equal(yes.calls, 1); \
	} while (0)
#define REFUSED(number, call)                      \
	do {                                       \
		yes.calls = 0;                     \
		assert_int_equal(call, -(number)); \
		assert_int_equal(yes.calls, 0);    \
	} while (0)

static void test_missing_operations_answer_enotty(void **state)
{
	struct qsc_device no = {&no_ops};
	struct qsc_device *dev = &no;
	struct qsc_dma_range range = {0, 4096};
	struct qsc_irq_set irqs = {.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER};
	struct qsc_region_write write = {.count = 1};
	struct qsc_dma_mapping mapping = {.size = 4096, .flags = QSC_DMA_READ, .fd = 0};
	uint64_t number = 4096;
	uint64_t bits = 0;
	enum qsc_state at;
	void *addr = &at;
	int fd = 7;

	(void)state;
	assert_string_equal(qsc_device_kind(dev), "no");
	assert_int_equal(qsc_device_get_info(dev, &(struct qsc_device_info){0}), -ENOTTY);
	assert_int_equal(qsc_device_get_region_info(dev, 0, &(struct qsc_region_info){0}), -ENOTTY);
	assert_int_equal(qsc_device_get_irq_info(dev, 0, &(struct qsc_irq_info){0}), -ENOTTY);
	assert_int_equal(qsc_device_region_read(dev, 0, 0, &bits, 4), -ENOTTY);
	assert_int_equal(qsc_device_region_write(dev, 0, 0, &bits, 4), -ENOTTY);
	assert_int_equal(qsc_device_region_write_multi(dev, &write, 1), -ENOTTY);
	assert_int_equal(qsc_device_region_map(dev, 0, 0, 4096, PROT_READ, &addr), -ENOTTY);
	assert_null(addr);
	assert_int_equal(qsc_device_region_unmap(dev, &bits, 4096), -ENOTTY);
	assert_int_equal(qsc_device_region_protect(dev, &bits, 4096, PROT_NONE), -ENOTTY);
	assert_int_equal(qsc_device_region_protect(dev, &bits, 4096, 99), -EINVAL);
	assert_int_equal(qsc_device_region_withdraw(dev, &bits, 4096), -ENOTTY);
	assert_int_equal(qsc_device_irq_counts(dev, &(struct qsc_irq_counts){0}), -ENOTTY);
	assert_int_equal(qsc_device_region_fd(dev, 0, &fd, &bits), -ENOTTY);
	assert_int_equal(fd, -1);
	assert_int_equal(qsc_device_region_io_fds(dev, 0, NULL, 0), -ENOTTY);
	assert_int_equal(qsc_device_set_irqs(dev, &irqs), -ENOTTY);
	assert_int_equal(qsc_device_dma_map(dev, &mapping), -ENOTTY);
	assert_int_equal(qsc_device_dma_unmap(dev, 0, 4096), -ENOTTY);
	assert_int_equal(qsc_device_get_migration(dev, &(struct qsc_migration_info){0}), -ENOTTY);
	assert_int_equal(qsc_device_get_state(dev, &at), -ENOTTY);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP, &bits), -ENOTTY);
	assert_int_equal(qsc_device_data_size(dev, &bits), -ENOTTY);
	assert_int_equal(qsc_device_log_start(dev, &number, &range, 1), -ENOTTY);
	assert_int_equal(qsc_device_log_stop(dev), -ENOTTY);
	assert_int_equal(qsc_device_log_report(dev, 0, 4096, 4096, &bits), -ENOTTY);
	assert_int_equal(qsc_device_session_read(dev, 1, &bits, 1), -ENOTTY);
	assert_int_equal(qsc_device_session_write(dev, 1, &bits, 1), -ENOTTY);
	assert_int_equal(qsc_device_session_precopy_info(dev, 1, &(struct qsc_precopy_info){0}),
			 -ENOTTY);
	assert_int_equal(qsc_device_session_close(dev, 1), -ENOTTY);
	assert_int_equal(qsc_device_reset(dev), -ENOTTY);
	qsc_device_close(dev);
	qsc_device_close(NULL);
}

static void test_region_ranges(void **state)
{
	struct yes yes = {.device = {&yes_ops}};
	struct qsc_device *dev = &yes.device;
	uint64_t buf = 0;
	void *addr;

	(void)state;
	ACCEPTED(qsc_device_region_read(dev, 0, INT64_MAX - 8, &buf, 8));
	REFUSED(EINVAL, qsc_device_region_read(dev, 0, INT64_MAX - 7, &buf, 8));
	REFUSED(EINVAL, qsc_device_region_read(dev, 0, UINT64_MAX, &buf, 8));
	REFUSED(EINVAL, qsc_device_region_read(dev, 0, 0, &buf, (size_t)SSIZE_MAX + 1));
	REFUSED(EINVAL, qsc_device_region_read(dev, 0, 0, NULL, 1));
	REFUSED(0, qsc_device_region_read(dev, 0, 0, NULL, 0));
	REFUSED(EINVAL, qsc_device_region_write(dev, 0, UINT64_MAX - 3, &buf, 4));
	REFUSED(EINVAL, qsc_device_region_write(dev, 0, 0, NULL, 1));
	REFUSED(0, qsc_device_region_write(dev, 0, 0, NULL, 0));

	ACCEPTED(qsc_device_region_map(dev, 0, 4096, 8192, PROT_READ | PROT_WRITE, &addr));
	REFUSED(EINVAL, qsc_device_region_map(dev, 0, 0, 0, PROT_READ, &addr));
	REFUSED(EINVAL, qsc_device_region_map(dev, 0, 1, 4096, PROT_READ, &addr));
	REFUSED(EINVAL, qsc_device_region_map(dev, 0, 0, 4095, PROT_READ, &addr));
	REFUSED(EINVAL, qsc_device_region_map(dev, 0, 0, 4096, 0, &addr));
	REFUSED(EINVAL, qsc_device_region_map(dev, 0, 0, 4096, PROT_READ | PROT_EXEC, &addr));
	REFUSED(EINVAL, qsc_device_region_map(dev, 0, UINT64_MAX - 4095, 4096, PROT_READ, &addr));
	assert_null(addr);
}

static void test_several_writes_one_at_a_time(void **state)
{
	struct yes yes = {.device = {&yes_ops}};
	struct qsc_region_write writes[] = {
		{.offset = 1, .count = 1, .data = {1}},
		{.offset = 13, .count = 2},
		{.offset = 2, .count = 8, .data = {2}},
	};

	(void)state;
	assert_int_equal(qsc_device_region_write_multi(&yes.device, writes, 3), 1);
	assert_int_equal(yes.calls, 2);
	assert_int_equal(yes.wrote[1], 1);
	assert_int_equal(yes.wrote[2], 0);
	assert_int_equal(qsc_device_region_write_multi(&yes.device, writes + 1, 2), -EPERM);
	assert_int_equal(qsc_device_region_write_multi(&yes.device, writes + 2, 1), 1);
	assert_int_equal(yes.wrote[2], 2);
	REFUSED(0, qsc_device_region_write_multi(&yes.device, NULL, 0));
	writes[1].count = 9;
	REFUSED(EINVAL, qsc_device_region_write_multi(&yes.device, writes, 3));
	writes[1].count = 0;
	REFUSED(EINVAL, qsc_device_region_write_multi(&yes.device, writes, 3));
	REFUSED(EINVAL, qsc_device_region_write_multi(&yes.device, NULL, 1));
}

static void test_interrupt_sets(void **state)
{
	struct yes yes = {.device = {&yes_ops}};
	struct qsc_device *dev = &yes.device;
	const int fds[2] = {3, -1};
	const uint8_t bools[2] = {1, 0};
	struct qsc_irq_set set = {.index = 2};

	(void)state;
	set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
	ACCEPTED(qsc_device_set_irqs(dev, &set));
	set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
	REFUSED(EINVAL, qsc_device_set_irqs(dev, &set));
	set.count = 2;
	ACCEPTED(qsc_device_set_irqs(dev, &set));
	set.start = UINT32_MAX - 1;
	REFUSED(EINVAL, qsc_device_set_irqs(dev, &set));
	set.start = 0;
	set.flags = VFIO_IRQ_SET_DATA_NONE;
	REFUSED(EINVAL, qsc_device_set_irqs(dev, &set));
	set.flags = VFIO_IRQ_SET_ACTION_TRIGGER;
	REFUSED(EINVAL, qsc_device_set_irqs(dev, &set));
	set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER;
	REFUSED(EINVAL, qsc_device_set_irqs(dev, &set));
	set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_ACTION_MASK;
	REFUSED(EINVAL, qsc_device_set_irqs(dev, &set));
	set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER | 1U << 31;
	REFUSED(EINVAL, qsc_device_set_irqs(dev, &set));
	set.flags = VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_UNMASK;
	REFUSED(EINVAL, qsc_device_set_irqs(dev, &set));
	set.bools = bools;
	ACCEPTED(qsc_device_set_irqs(dev, &set));
	set.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	REFUSED(EINVAL, qsc_device_set_irqs(dev, &set));

	ACCEPTED(qsc_device_set_eventfds(dev, 2, fds, 2));
	assert_ptr_equal(yes.irqs.fds, fds);
	assert_int_equal(yes.irqs.count, 2);
	REFUSED(EINVAL, qsc_device_set_eventfds(dev, 2, fds, 0));
	ACCEPTED(qsc_device_set_eventfds(dev, 2, NULL, 5));
	assert_int_equal(yes.irqs.count, 0);
	assert_int_equal(yes.irqs.flags, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER);
}

static int access_nothing(void *ctx, uint64_t iova, void *buf, size_t size)
{
	return 0;
}

static void test_dma_mappings(void **state)
{
	static const struct qsc_dma_access reads_only = {.read = access_nothing};
	struct yes yes = {.device = {&yes_ops}};
	struct qsc_device *dev = &yes.device;
	const struct qsc_dma_mapping good = {
		.iova = 4096, .size = 8192, .flags = QSC_DMA_READ | QSC_DMA_WRITE, .fd = 5};
	struct qsc_dma_mapping m = good;

	(void)state;
	ACCEPTED(qsc_device_dma_map(dev, &m));
	m.flags |= QSC_DMA_PEER;
	ACCEPTED(qsc_device_dma_map(dev, &m));
	m.flags = QSC_DMA_PEER;
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));
	m.flags = QSC_DMA_READ | 8;
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));
	m = good;
	m.iova = 4097;
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));
	m.iova = UINT64_MAX - 4095;
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));
	m = good;
	m.size = 0;
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));
	m.size = 4095;
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));
	m = good;
	m.fd_offset = INT64_MAX - 4095;
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));
	m.fd = -1;
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));
	m.access = &reads_only;
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));
	m.flags = QSC_DMA_READ;
	ACCEPTED(qsc_device_dma_map(dev, &m));
	m.vaddr = (void *)(UINTPTR_MAX - 4095);
	REFUSED(EINVAL, qsc_device_dma_map(dev, &m));

	ACCEPTED(qsc_device_dma_unmap(dev, 4096, 8192));
	REFUSED(ENOENT, qsc_device_dma_unmap(dev, 4096, 0));
	REFUSED(ENOENT, qsc_device_dma_unmap(dev, 1, 4096));
	REFUSED(ENOENT, qsc_device_dma_unmap(dev, UINT64_MAX - 4095, 4096));
}

/* LOG-3 */
static void test_log_arguments(void **state)
{
	struct yes yes = {.device = {&yes_ops}};
	struct qsc_device *dev = &yes.device;
	struct qsc_dma_range r[] = {{0x100000, 0x1000}, {0x1000, 0x2000}, {0x3000, 0x1000}};
	uint64_t page = 4096;
	uint64_t bits = 0;

	(void)state;
	ACCEPTED(qsc_device_log_start(dev, &page, r, 3));
	ACCEPTED(qsc_device_log_start(dev, &page, r + 1, 2));
	REFUSED(EINVAL, qsc_device_log_start(dev, &page, r, 0));
	REFUSED(EINVAL, qsc_device_log_start(dev, &page, NULL, 1));
	r[2].iova = 0x2fff;
	REFUSED(EINVAL, qsc_device_log_start(dev, &page, r, 3));
	r[2] = r[0];
	REFUSED(EINVAL, qsc_device_log_start(dev, &page, r, 3));
	r[2].size = 0;
	REFUSED(EINVAL, qsc_device_log_start(dev, &page, r, 3));
	r[2].size = UINT64_MAX;
	REFUSED(EINVAL, qsc_device_log_start(dev, &page, r, 3));
	for (uint64_t wrong = 0; wrong < 4096; wrong = wrong * 2 + 1) {
		page = wrong;
		REFUSED(EINVAL, qsc_device_log_start(dev, &page, r, 1));
		REFUSED(EINVAL, qsc_device_log_report(dev, 0, 4096, wrong, &bits));
	}
	page = 4096 + 512;
	REFUSED(EINVAL, qsc_device_log_start(dev, &page, r, 1));
	page = 1ULL << 63;
	ACCEPTED(qsc_device_log_start(dev, &page, r, 1));

	ACCEPTED(qsc_device_log_report(dev, 8192, 1, 8192, &bits));
	REFUSED(EINVAL, qsc_device_log_report(dev, 4096, 1, 8192, &bits));
	REFUSED(EINVAL, qsc_device_log_report(dev, 8192, 0, 4096, &bits));
	REFUSED(EINVAL, qsc_device_log_report(dev, 8192, UINT64_MAX - 8191, 4096, &bits));
	REFUSED(EINVAL, qsc_device_log_report(dev, 8192, 1, 6144, &bits));
	REFUSED(EINVAL, qsc_device_log_report(dev, 8192, 1, 4096, NULL));
}

static void test_sessions(void **state)
{
	struct yes yes = {.device = {&yes_ops}, .session = 5};
	struct qsc_device *dev = &yes.device;
	struct qsc_precopy_info info;
	uint64_t session = 99;
	struct iovec piece;
	size_t count;
	char byte = 0;

	(void)state;
	ACCEPTED(qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session));
	assert_int_equal(session, 5);
	yes.answer = -EIO;
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session), -EIO);
	assert_int_equal(session, 0);
	yes.answer = 0;
	ACCEPTED(qsc_device_session_read(dev, 5, &byte, 1));
	/* A device that does not lend is read. */
	ACCEPTED(qsc_device_session_lend(dev, 5, &byte, 1, &piece, 1, &count));
	yes.answer = 1;
	assert_int_equal(qsc_device_session_lend(dev, 5, &byte, 1, &piece, 1, &count), 1);
	assert_int_equal(count, 1);
	assert_ptr_equal(piece.iov_base, &byte);
	assert_int_equal(piece.iov_len, 1);
	yes.answer = -ENOMSG;
	assert_int_equal(qsc_device_session_lend(dev, 5, &byte, 1, &piece, 1, &count), -ENOMSG);
	assert_int_equal(count, 0);
	yes.answer = 0;
	REFUSED(ENODEV, qsc_device_session_lend(dev, 0, &byte, 1, &piece, 1, &count));
	REFUSED(EINVAL, qsc_device_session_lend(dev, 5, &byte, 0, &piece, 1, &count));
	REFUSED(EINVAL, qsc_device_session_lend(dev, 5, NULL, 1, &piece, 1, &count));
	REFUSED(EINVAL, qsc_device_session_lend(dev, 5, &byte, 1, &piece, 0, &count));
	REFUSED(EINVAL, qsc_device_session_lend(dev, 5, &byte, 1, NULL, 1, &count));
	ACCEPTED(qsc_device_session_write(dev, 5, NULL, 0));
	REFUSED(ENODEV, qsc_device_session_read(dev, 0, &byte, 1));
	REFUSED(EINVAL, qsc_device_session_read(dev, 5, &byte, 0));
	REFUSED(EINVAL, qsc_device_session_read(dev, 5, NULL, 1));
	REFUSED(ENODEV, qsc_device_session_write(dev, 0, &byte, 1));
	REFUSED(EINVAL, qsc_device_session_write(dev, 5, NULL, 1));
	REFUSED(EINVAL, qsc_device_session_precopy_info(dev, 0, &info));
	ACCEPTED(qsc_device_session_precopy_info(dev, 5, &info));
	REFUSED(ENODEV, qsc_device_session_close(dev, 0));
	ACCEPTED(qsc_device_session_close(dev, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_missing_operations_answer_enotty),
		cmocka_unit_test(test_region_ranges),
		cmocka_unit_test(test_several_writes_one_at_a_time),
		cmocka_unit_test(test_interrupt_sets),
		cmocka_unit_test(test_dma_mappings),
		cmocka_unit_test(test_log_arguments),
		cmocka_unit_test(test_sessions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
