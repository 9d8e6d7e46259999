# The whole of the x86_64 probe guest: the last 64 KiB below 4 GiB, in place of a firmware. It goes the way each real
# kernel goes, from the reset vector into long mode with paging on, and then ends QEMU through isa-debug-exit.
#
#   as --64 -o probe.o probe-guest.S && objcopy -O binary -j .text probe.o probe.bin
#
# gives the bytes in probe-guest.ts; a test holds the two together. The reset vector, a far jump to F000:0000, is put
# in place there. The board shows the same ROM below 1 MiB, where this runs: code at 0xf0000, page tables at 0x1000.
        .code16
        .globl  _start
_start:
        cli
        cld
        xorl    %eax, %eax
        movw    %ax, %ds
        movw    %ax, %es
        movw    $0x1000, %di
        movw    $0x3000, %cx
        rep stosb
# One page of 2 MiB, mapped to itself.
        movw    $0x2003, 0x1000
        movw    $0x3003, 0x2000
        movw    $0x0083, 0x3000
        lgdtl   %cs:gdt_pointer - _start
# PAE, the tables, long mode, then protection and paging at once.
        movl    %cr4, %eax
        orb     $0x20, %al
        movl    %eax, %cr4
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orb     $1, %ah
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000001, %eax
        movl    %eax, %cr0
        ljmpl   $8, $long_mode - _start + 0xf0000
        .code64
long_mode:
        movl    $0x100000, %ecx
1:      decl    %ecx
        jnz     1b
# QEMU exits with 2 * 0x10 + 1.
        movb    $0x10, %al
        outb    %al, $0xf4
2:      hlt
        jmp     2b
        .balign 8
gdt:    .quad   0
        .quad   0x00209a0000000000
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt - _start + 0xf0000
