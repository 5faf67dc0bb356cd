import CLinuxVirtio
import Testing
import VirtioSpec

@Suite struct CommonConfigurationTests {
    @Test func `the kernel has every register at the same offset`() {
        let kernel: [CommonConfiguration: Int32] = [
            .deviceFeatureSelect: VIRTIO_PCI_COMMON_DFSELECT,
            .deviceFeature: VIRTIO_PCI_COMMON_DF,
            .driverFeatureSelect: VIRTIO_PCI_COMMON_GFSELECT,
            .driverFeature: VIRTIO_PCI_COMMON_GF,
            .configurationVector: VIRTIO_PCI_COMMON_MSIX,
            .queueCount: VIRTIO_PCI_COMMON_NUMQ,
            .deviceStatus: VIRTIO_PCI_COMMON_STATUS,
            .configurationGeneration: VIRTIO_PCI_COMMON_CFGGENERATION,
            .queueSelect: VIRTIO_PCI_COMMON_Q_SELECT,
            .queueSize: VIRTIO_PCI_COMMON_Q_SIZE,
            .queueVector: VIRTIO_PCI_COMMON_Q_MSIX,
            .queueEnable: VIRTIO_PCI_COMMON_Q_ENABLE,
            .queueNotifyOffset: VIRTIO_PCI_COMMON_Q_NOFF,
            .queueDescriptorLow: VIRTIO_PCI_COMMON_Q_DESCLO,
            .queueDescriptorHigh: VIRTIO_PCI_COMMON_Q_DESCHI,
            .queueDriverLow: VIRTIO_PCI_COMMON_Q_AVAILLO,
            .queueDriverHigh: VIRTIO_PCI_COMMON_Q_AVAILHI,
            .queueDeviceLow: VIRTIO_PCI_COMMON_Q_USEDLO,
            .queueDeviceHigh: VIRTIO_PCI_COMMON_Q_USEDHI,
            .queueNotifyConfigurationData: VIRTIO_PCI_COMMON_Q_NDATA,
            .queueReset: VIRTIO_PCI_COMMON_Q_RESET,
        ]
        for (register, offset) in kernel { #expect(register.offset == Int(offset)) }
        #expect(CommonConfiguration.leastLength == MemoryLayout<virtio_pci_common_cfg>.size)
        #expect(CommonConfiguration.noVector == UInt16(VIRTIO_MSI_NO_VECTOR))
        // The kernel headers of Debian 12 end before the two admin-queue registers.
        let missing = Set(CommonConfiguration.allCases).subtracting(kernel.keys)
        #expect(missing == [.adminQueueIndex, .adminQueueCount])
    }

    @Test func `registers fill the structure without a gap`() {
        var at = 0
        for register in CommonConfiguration.allCases.sorted(by: { $0.offset < $1.offset }) {
            #expect(register.offset == at)
            for byte in at..<at + register.width {
                #expect(CommonConfiguration(byte: byte) == register)
            }
            at += register.width
        }
        #expect(at == CommonConfiguration.length)
        #expect(CommonConfiguration(byte: at) == nil)
        #expect(CommonConfiguration(byte: -1) == nil)
    }

    @Test func `status and feature bits are the kernel's`() {
        #expect(DeviceStatus.acknowledge.rawValue == UInt8(VIRTIO_CONFIG_S_ACKNOWLEDGE))
        #expect(DeviceStatus.driver.rawValue == UInt8(VIRTIO_CONFIG_S_DRIVER))
        #expect(DeviceStatus.driverOK.rawValue == UInt8(VIRTIO_CONFIG_S_DRIVER_OK))
        #expect(DeviceStatus.featuresOK.rawValue == UInt8(VIRTIO_CONFIG_S_FEATURES_OK))
        #expect(DeviceStatus.needsReset.rawValue == UInt8(VIRTIO_CONFIG_S_NEEDS_RESET))
        #expect(DeviceStatus.failed.rawValue == UInt8(VIRTIO_CONFIG_S_FAILED))
        let bits: [(FeatureBits, Int32)] = [
            (.version1, VIRTIO_F_VERSION_1), (.accessPlatform, VIRTIO_F_ACCESS_PLATFORM),
            (.ringPacked, VIRTIO_F_RING_PACKED), (.inOrder, VIRTIO_F_IN_ORDER),
            (.ringReset, VIRTIO_F_RING_RESET),
        ]
        for (bit, number) in bits { #expect(bit.bits == [UInt8(number)]) }
        #expect(DeviceType.net.rawValue == UInt32(VIRTIO_ID_NET))
    }
}
