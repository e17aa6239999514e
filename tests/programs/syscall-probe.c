// SPDX-License-Identifier: Apache-2.0
/*
 * Makes system calls through each interface of an x86-64 kernel and prints what the kernel answers.
 *
 *   syscall-probe [WAY NUMBER ARG0 ARG1 ARG2]...
 *
 *   WAY 64          the processor's own calls
 *       x32         the same with bit 30 set: the x32 interface
 *       32          int $0x80: the calls of i386
 *       socketcall  int $0x80, number 102: NUMBER is its call, the arguments lie in memory
 *
 * Prints one line per call: what it returned, as the kernel did (-1 is EPERM). A descriptor that was returned is closed.
 * No C library: `cc -static -nostdlib -ffreestanding -no-pie` makes it, and its data lie where 32 bits reach.
 */
typedef unsigned long ulong;

static long call64(ulong nr, ulong a, ulong b, ulong c, ulong d) {
    long result;
    register ulong r10 __asm__("r10") = d;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

static long call32(ulong nr, ulong a, ulong b, ulong c) {
    unsigned int result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"((unsigned int)nr), "b"((unsigned int)a), "c"((unsigned int)b), "d"((unsigned int)c)
                     : "r8", "r9", "r10", "r11", "memory");
    return (int)result;
}

static unsigned int block[3];

static ulong number(const char *text) {
    ulong base = 10, value = 0;
    if (text[0] == '0' && text[1] == 'x') {
        base = 16;
        text += 2;
    }
    for (; *text; text++)
        value = value * base + (ulong)(*text <= '9' ? *text - '0' : *text - 'a' + 10);
    return value;
}

static void print(long value) {
    char text[24];
    char *at = text + sizeof text;
    ulong left = value < 0 ? -(ulong)value : (ulong)value;
    *--at = '\n';
    do {
        *--at = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (value < 0)
        *--at = '-';
    call64(1, 1, (ulong)at, (ulong)(text + sizeof text - at), 0);
}

__attribute__((used)) static void run(ulong *stack) {
    const char **word = (const char **)(stack + 2);
    for (; word[0] && word[1] && word[2] && word[3] && word[4]; word += 5) {
        ulong nr = number(word[1]), a = number(word[2]), b = number(word[3]), c = number(word[4]);
        long result;
        if (word[0][0] == '6')
            result = call64(nr, a, b, c, 0);
        else if (word[0][0] == 'x')
            result = call64(nr | 0x40000000, a, b, c, 0);
        else if (word[0][0] == '3')
            result = call32(nr, a, b, c);
        else {
            block[0] = (unsigned int)a;
            block[1] = (unsigned int)b;
            block[2] = (unsigned int)c;
            result = call32(102, nr, (ulong)block, 0);
        }
        if (result > 2)
            call64(3, (ulong)result, 0, 0, 0);
        print(result);
    }
    call64(231, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
