public import VirtioSpec

/// All capabilities of a function, and what is wrong with them.
public struct CapabilityReport: Hashable, Sendable {
    /// The capabilities in list order, then the extended ones.
    public let capabilities: [Capability]
    /// What is wrong with the lists themselves.
    public let problems: [String]

    /// Takes configuration space apart; `bars` is what ranges are checked against.
    public init(_ image: ConfigurationImage, bars: BARSizes = .unknown) {
        var problems: [String] = []
        var capabilities: [Capability] = []
        if image.isAllOnes {
            self.capabilities = []
            self.problems = [
                "pci/device-gone: configuration space reads as ones: the function is gone, or in D3"
            ]
            return
        }
        let list = Self.list(image)
        let isVirtio = image.identity?.isVirtio ?? false
        for entry in list.entries {
            var capability = Capability(entry)
            capability.decode(image, bars, isVirtio: isVirtio)
            capabilities.append(capability)
        }
        if !list.ends {
            problems.append(
                image.isHeaderOnly
                    ? "only the first \(image.bytes.count) bytes of configuration space can be read;"
                        + " run as root to see capabilities"
                    : "\(PCIError.capabilityLoop)"
            )
        }
        let extended = ExtendedCapabilityList(image)
        for entry in extended.entries {
            var capability = Capability(entry)
            capability.decodeExtended(image)
            capabilities.append(capability)
        }
        if let problem = extended.problem { problems.append("pci/cap-loop: \(problem)") }
        self.capabilities = capabilities
        self.problems = problems
    }

    private static func list(
        _ image: ConfigurationImage
    ) -> (entries: [CapabilityList.Entry], ends: Bool) {
        do { return try CapabilityList.walk { image.byte($0) } } catch { return ([], false) }
    }

    /// The virtio structures of one type, in list order.
    public func virtio(_ type: VirtioCapabilityType) -> [Capability] {
        capabilities.filter { $0.virtio?.type == type }
    }

    /// Vectors in the MSI-X table; `nil` without the capability.
    public var messageVectors: Int? {
        let capability = capabilities.first { !$0.isExtended && $0.identifier == 0x11 }
        guard case .number(let count)? = capability?["vectors"] else { return nil }
        return Int(clamping: count)
    }

    /// The function can be reset by itself.
    public var hasFunctionLevelReset: Bool {
        capabilities.contains { $0["function_level_reset"] == .flag(true) }
    }
}
