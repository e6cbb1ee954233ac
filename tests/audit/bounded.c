/* SPDX-License-Identifier: MIT */
/*
 * The audit keeps bounded memory whatever comes: millions of actions in changing states, mappings
 * that come and go at ever other addresses, sessions, failures, devices that are opened and let go
 * of by ever other users, and all that is wrong. Once everything has happened that it has room for,
 * the heap does not grow any more.
 */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include <quiesce/audit.h>

#define ROUNDS_BEFORE 600U /* as many devices are let go of: more than are kept */
#define ROUNDS	      6000U
#define ACTIONS	      500U /* a round */
#define MAPPINGS      48U

/* ---- a device that does what it is told, or fails ---- */

struct bottom {
	struct qsc_device device;
	enum qsc_state state;
	uint64_t sessions;
	uint64_t seed;
};

static uint64_t draw(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static struct bottom *bottom_of(struct qsc_device *dev)
{
	return (struct bottom *)(void *)dev;
}

static int answer(struct qsc_device *dev)
{
	return draw(&bottom_of(dev)->seed) % 16 ? 0 : -EIO;
}

static int get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	*info = (struct qsc_migration_info){.flags = 7, .dirty_log = true};
	return 0;
}

static int get_state(struct qsc_device *dev, enum qsc_state *state)
{
	*state = bottom_of(dev)->state;
	return 0;
}

static int set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct bottom *bottom = bottom_of(dev);

	if (answer(dev)) {
		bottom->state = QSC_STATE_ERROR;
		return -EIO;
	}
	bottom->state = (enum qsc_state)target;
	*session = ++bottom->sessions;
	return 0;
}

static ssize_t region(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
		      size_t count)
{
	return answer(dev) ? -EIO : (ssize_t)count;
}

static int set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	return answer(dev);
}

static int dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	return 0;
}

static int dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	return 0;
}

static int log_start(struct qsc_device *dev, uint64_t *page_size,
		     const struct qsc_dma_range *ranges, size_t num_ranges)
{
	return answer(dev);
}

static int log_stop(struct qsc_device *dev)
{
	return answer(dev);
}

static int log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
		      uint64_t *bitmap)
{
	return answer(dev);
}

static ssize_t session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	memset(buf, (int)(bottom_of(dev)->seed & 0xff), size);
	return draw(&bottom_of(dev)->seed) % 4 ? (ssize_t)size : 0;
}

static ssize_t session_write(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	return answer(dev) ? -EIO : (ssize_t)size;
}

static int precopy_info(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	info->initial_bytes = draw(&bottom_of(dev)->seed) % 4096;
	return answer(dev);
}

static int reset(struct qsc_device *dev)
{
	bottom_of(dev)->state = QSC_STATE_RUNNING;
	return 0;
}

static void bottom_close(struct qsc_device *dev)
{
}

static const struct qsc_device_ops ops = {
	.kind = "bottom",
	.region_read = region,
	.set_irqs = set_irqs,
	.dma_map = dma_map,
	.dma_unmap = dma_unmap,
	.get_migration = get_migration,
	.get_state = get_state,
	.set_state = set_state,
	.log_start = log_start,
	.log_stop = log_stop,
	.log_report = log_report,
	.session_read = session_read,
	.session_write = session_write,
	.session_precopy_info = precopy_info,
	.reset = reset,
	.close = bottom_close,
};

/* ---- a user who does whatever comes ---- */

struct user {
	struct qsc_device *dev;
	uint64_t seed;
	uint64_t mapped[MAPPINGS]; /* or 0 */
	uint64_t next_iova;
};

static void map_or_unmap(struct user *user)
{
	uint64_t *at = &user->mapped[draw(&user->seed) % MAPPINGS];
	struct qsc_dma_mapping mapping = {
		.size = 4096,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE | (draw(&user->seed) % 4 ? 0 : QSC_DMA_PEER),
		.vaddr = user,
		.fd = -1,
	};

	if (*at) {
		(void)qsc_device_dma_unmap(user->dev, *at, 4096);
		*at = 0;
		return;
	}
	user->next_iova += 4096 * (1 + draw(&user->seed) % 1000);
	mapping.iova = *at = user->next_iova;
	(void)qsc_device_dma_map(user->dev, &mapping);
}

static void work_with_stream(struct user *user)
{
	uint8_t piece[512] = {0};
	struct qsc_precopy_info info;

	switch (draw(&user->seed) % 3) {
	case 0:
		(void)qsc_device_session_read(user->dev, 1, piece,
					      1 + draw(&user->seed) % sizeof(piece));
		break;
	case 1:
		(void)qsc_device_session_write(user->dev, 1, piece,
					       1 + draw(&user->seed) % sizeof(piece));
		break;
	default:
		(void)qsc_device_session_precopy_info(user->dev, 1, &info);
		break;
	}
}

static void work_with_log(struct user *user)
{
	uint64_t iova = draw(&user->seed) % 1000 * 4096, page_size = 4096, bitmap = 0;
	const struct qsc_dma_range range = {iova, 4096};

	switch (draw(&user->seed) % 3) {
	case 0:
		(void)qsc_device_log_start(user->dev, &page_size, &range, 1);
		break;
	case 1:
		(void)qsc_device_log_stop(user->dev);
		break;
	default:
		(void)qsc_device_log_report(user->dev, iova, 4096, 4096, &bitmap);
		break;
	}
}

static void act(struct user *user)
{
	enum qsc_state state;
	uint64_t session;
	uint32_t value;

	switch (draw(&user->seed) % 8) {
	case 0:
		(void)qsc_device_set_state(
			user->dev, (uint32_t)(draw(&user->seed) % QSC_STATE_COUNT), &session);
		break;
	case 1:
		(void)qsc_device_get_state(user->dev, &state);
		break;
	case 2:
		map_or_unmap(user);
		break;
	case 3:
		work_with_stream(user);
		break;
	case 4:
		work_with_log(user);
		break;
	case 5:
		(void)qsc_device_set_eventfds(user->dev, VFIO_PCI_MSIX_IRQ_INDEX, NULL, 0);
		break;
	case 6:
		if (draw(&user->seed) % 32 == 0)
			(void)qsc_device_reset(user->dev);
		break;
	default:
		(void)qsc_device_region_read(user->dev, (uint32_t)(draw(&user->seed) % 9),
					     draw(&user->seed) % 4096, &value, sizeof(value));
		break;
	}
}

/* What was saved and let go of is remembered: it may yet be found where it is loaded. */
static void save(struct user *user)
{
	uint8_t piece[256];
	uint64_t session;

	(void)qsc_device_reset(user->dev);
	(void)qsc_device_set_state(user->dev, QSC_STATE_STOP_COPY, &session);
	for (int i = 0;
	     i < 100 && qsc_device_session_read(user->dev, session, piece, sizeof(piece)) > 0; i++)
		;
}

/* A device comes, is used, saved, and let go of. */
static void one_round(struct qsc_audit *audit, uint32_t number)
{
	struct bottom bottom = {
		.device = {&ops}, .state = QSC_STATE_RUNNING, .seed = number * 2ULL + 1};
	struct user user = {.seed = number * 0x9e3779b97f4a7c15ULL | 1, .next_iova = 4096};
	char name[32];

	(void)snprintf(name, sizeof(name), "device%u", number % 1000);
	if (qsc_audit_open(audit, &bottom.device, name, number / 4, &user.dev) < 0)
		exit(1);
	for (uint32_t i = 0; i < ACTIONS; i++)
		act(&user);
	save(&user);
	qsc_device_close(user.dev);
}

int main(void)
{
	struct qsc_audit_totals totals;
	struct qsc_audit *audit;
	uint32_t number = 0;
	size_t before, after, findings;

	if (qsc_audit_create(QSC_AUDIT_STRICT, &audit) < 0)
		return 1;
	while (number < ROUNDS_BEFORE)
		one_round(audit, number++);
	findings = qsc_audit_count(audit);
	before = mallinfo2().uordblks;
	while (number < ROUNDS_BEFORE + ROUNDS)
		one_round(audit, number++);
	after = mallinfo2().uordblks;
	qsc_audit_totals(audit, &totals);
	printf("%llu actions on %llu devices, %zu kinds of findings, then %zu, and %llu without "
	       "room; "
	       "%zu bytes, then %zu\n",
	       (unsigned long long)totals.actions, (unsigned long long)totals.devices, findings,
	       qsc_audit_count(audit), (unsigned long long)totals.dropped, before, after);
	/* It has found more kinds than it has room for, or nothing was put to the test. */
	if (!totals.dropped || totals.devices != ROUNDS_BEFORE + ROUNDS || !before)
		return 1;
	qsc_audit_destroy(audit);
	return after > before + before / 16;
}
