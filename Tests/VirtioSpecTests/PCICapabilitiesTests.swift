import CLinuxVirtio
import Testing
import VirtioSpec

@Suite struct PCICapabilitiesTests {
    @Test func `types, lengths and field offsets are the kernel's`() {
        let types: [(VirtioCapabilityType, Int32, Int)] = [
            (.common, VIRTIO_PCI_CAP_COMMON_CFG, MemoryLayout<virtio_pci_cap>.size),
            (.notify, VIRTIO_PCI_CAP_NOTIFY_CFG, MemoryLayout<virtio_pci_notify_cap>.size),
            (.interruptStatus, VIRTIO_PCI_CAP_ISR_CFG, MemoryLayout<virtio_pci_cap>.size),
            (.device, VIRTIO_PCI_CAP_DEVICE_CFG, MemoryLayout<virtio_pci_cap>.size),
            (.configurationAccess, VIRTIO_PCI_CAP_PCI_CFG, MemoryLayout<virtio_pci_cfg_cap>.size),
            (
                .sharedMemory, VIRTIO_PCI_CAP_SHARED_MEMORY_CFG,
                MemoryLayout<virtio_pci_cap64>.size
            ),
        ]
        for (type, number, length) in types {
            #expect(type.rawValue == UInt8(number))
            #expect(type.length == length)
            #expect(VirtioCapability(type).encoded().count == length)
        }
        #expect(VirtioCapability.nextOffset == Int(VIRTIO_PCI_CAP_NEXT))
        #expect(VirtioCapability.accessBAR == Int(VIRTIO_PCI_CAP_BAR))
        #expect(VirtioCapability.accessOffset == Int(VIRTIO_PCI_CAP_OFFSET))
        #expect(VirtioCapability.accessLength == Int(VIRTIO_PCI_CAP_LENGTH))
        #expect(VirtioCapability.accessBytes == MemoryLayout<virtio_pci_cap>.size)
    }

    @Test func `VPN-D-01: the peer-notify capability has these bytes`() {
        let capability = VirtioCapability(
            .peerNotify,
            offset: 0x4000,
            length: 0x2000,
            multiplier: 4
        )
        #expect(
            capability.encoded(next: 0xbc) == [
                0x09, 0xbc, 0x14, 0xf0, 0, 0, 0, 0, 0x00, 0x40, 0, 0, 0x00, 0x20, 0, 0, 4, 0, 0, 0,
            ]
        )
    }

    @Test func `a window of 16 GiB has these bytes`() {
        let capability = VirtioCapability(.sharedMemory, bar: 2, length: 16 << 30)
        #expect(
            capability.encoded() == [
                0x09, 0x00, 0x18, 0x08, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0,
            ]
        )
    }

    @Test func `what was encoded is what is decoded`() {
        for type in [
            VirtioCapabilityType.common, .notify, .interruptStatus, .device, .peerNotify,
        ] {
            let hasMultiplier = type == .notify || type == .peerNotify
            let capability = VirtioCapability(
                type,
                bar: 4,
                id: 9,
                offset: 0xffff_fffe,
                length: 0x1234_5678,
                multiplier: hasMultiplier ? 0x8000_0000 : 0
            )
            #expect(VirtioCapability(bytes: capability.encoded(next: 0x40)) == capability)
        }
        let wide = VirtioCapability(.sharedMemory, bar: 2, id: 1, offset: 1 << 40, length: 1 << 44)
        #expect(VirtioCapability(bytes: wide.encoded()) == wide)
    }

    @Test func `HI-H6: a capability shorter than its type is refused`() {
        for type in [VirtioCapabilityType.common, .notify, .sharedMemory, .peerNotify] {
            var bytes = VirtioCapability(type, length: 64).encoded()
            for stated in 0..<type.length {
                bytes[2] = UInt8(stated)
                #expect(VirtioCapability(bytes: bytes) == nil)
            }
            bytes[2] = UInt8(type.length)
            for count in 0..<type.length {
                #expect(VirtioCapability(bytes: bytes.prefix(count)) == nil)
            }
        }
    }

    @Test func `HI-H6: a capability of another id is refused`() {
        var bytes = VirtioCapability(.common, length: 64).encoded()
        bytes[0] = 0x11
        #expect(VirtioCapability(bytes: bytes) == nil)
    }

    @Test func `HI-H7: a capability longer than known is taken`() {
        var bytes = VirtioCapability(.common, length: 64).encoded() + [1, 2, 3, 4]
        bytes[2] = 20
        #expect(VirtioCapability(bytes: bytes)?.length == 64)
        bytes[2] = 255
        #expect(VirtioCapability(bytes: bytes)?.length == 64)
    }
}
