/* SPDX-License-Identifier: MIT */
/*
 * The socket calls of the access path, made in line where that is known how; they return -errno.
 *
 * A kernel that guards its returns (against SRSO, "Safe RET") leaves the processor with none of its
 * caller's return addresses: every function that is left after a system call is a return predicted
 * wrongly, as dear as fifty instructions. So there is no function around these, and whoever cares
 * for speed calls them from as few as can be. What the C library would add is no loss: that a
 * thread can be cancelled in them.
 */
#ifndef QSC_BASE_SYSCALL_H
#define QSC_BASE_SYSCALL_H

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* For a function that stands between one of these and who calls for it. */
#define qsc_flat static inline __attribute__((always_inline))

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

/* Sanitizers have to see what is read and written: they know the C library's functions. */
#if defined(__x86_64__) && defined(__LP64__) && !defined(__SANITIZE_ADDRESS__) && \
	!defined(__SANITIZE_THREAD__) && !__has_feature(address_sanitizer) &&     \
	!__has_feature(thread_sanitizer) && !__has_feature(memory_sanitizer)

qsc_flat long qsc_syscall(long number, long a, long b, long c, long d)
{
	register long fourth __asm__("r10") = d;
	register long fifth __asm__("r8") = 0;
	register long sixth __asm__("r9") = 0;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
			 : "rcx", "r11", "memory");
	return result;
}

qsc_flat ssize_t qsc_recv(int fd, void *buf, size_t size, int flags)
{
	return qsc_syscall(SYS_recvfrom, fd, (long)buf, (long)size, flags);
}

qsc_flat ssize_t qsc_recvmsg(int fd, struct msghdr *message, int flags)
{
	return qsc_syscall(SYS_recvmsg, fd, (long)message, flags, 0);
}

qsc_flat ssize_t qsc_send(int fd, const void *buf, size_t size, int flags)
{
	return qsc_syscall(SYS_sendto, fd, (long)buf, (long)size, flags);
}

#else

qsc_flat ssize_t qsc_recv(int fd, void *buf, size_t size, int flags)
{
	ssize_t n = recv(fd, buf, size, flags);

	return n < 0 ? -errno : n;
}

qsc_flat ssize_t qsc_recvmsg(int fd, struct msghdr *message, int flags)
{
	ssize_t n = recvmsg(fd, message, flags);

	return n < 0 ? -errno : n;
}

qsc_flat ssize_t qsc_send(int fd, const void *buf, size_t size, int flags)
{
	ssize_t n = send(fd, buf, size, flags);

	return n < 0 ? -errno : n;
}

#endif

#endif
