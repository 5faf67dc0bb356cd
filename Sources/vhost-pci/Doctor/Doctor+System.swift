import HostSystem

// What surrounds the process.
extension Doctor {
    var system: [Finding] { [privilege, container, lockdown, confinement, taint, kvm] }

    private var privilege: Finding {
        let id = "host/privilege"
        let path = ProcessFacts.statusPath
        guard let user = process.user, let isAdministrator = process.has(.administer) else {
            return .unknown(id, "who this user is cannot be read", read: path)
        }
        if isAdministrator { return .ok(id, "user \(user) may change drivers", read: path) }
        return .warn(
            id,
            "user \(user) may not change drivers, and cannot read all that is checked here",
            read: path,
            remedy: "run as root what changes drivers, and this"
        )
    }

    private var container: Finding {
        let id = "host/container"
        let path = "/proc/self/mountinfo"
        guard let text = file(path).text else {
            return .unknown(id, "the mounts cannot be read", read: path)
        }
        let line = text.split(separator: "\n").map { $0.split(separator: " ") }
            .last { $0.count > 5 && $0[4] == "/sys" }
        let mark = ["/.dockerenv", "/run/.containerenv"].first { tree.exists($0) }
        if let line, line[5].split(separator: ",").contains("ro") {
            return .fail(
                id,
                "/sys is mounted read-only\(mark == nil ? "" : ", as in a container"): no driver"
                    + " can be changed from here",
                read: path,
                remedy: "bind the device outside, and pass /dev/vfio in"
            )
        }
        guard let mark else { return .ok(id, "no sign of a container", read: path) }
        return .ok(id, "a container, but /sys can be written", read: path, mark)
    }

    private var lockdown: Finding {
        let id = "host/locked"
        let path = "/sys/kernel/security/lockdown"
        switch file(path) {
        case .absent: return .ok(id, "this kernel has no lockdown, or does not show it", read: path)
        case .closed(let why): return .unknown(id, why, read: path)
        case .text(let text):
            let choice =
                text.split(separator: " ").first { $0.hasPrefix("[") }
                .map { $0.dropFirst().prefix { $0 != "]" } } ?? "none"
            if choice == "none" { return .ok(id, "the kernel is not locked down", read: path) }
            return .warn(
                id,
                "the kernel is locked down (\(choice)): UIO cannot map a device's registers",
                read: path,
                remedy: "use vfio-pci, or boot without lockdown (without secure boot)"
            )
        }
    }

    private var confinement: Finding {
        let id = "host/confined"
        let enforce = "/sys/fs/selinux/enforce"
        if file(enforce).text == "1" {
            return .warn(
                id,
                "SELinux is enforced: a refusal of it looks like a lack of permission",
                read: enforce,
                remedy: "look for denials: ausearch -m avc"
            )
        }
        let profile = "/proc/self/attr/current"
        if let text = file(profile).text, text.hasSuffix("(enforce)") {
            return .warn(
                id,
                "AppArmor confines this process: \(text)",
                read: profile,
                remedy: "look for denials in the kernel's log"
            )
        }
        let path = ProcessFacts.statusPath
        switch process["Seccomp"] {
        case "0": return .ok(id, "nothing filters the calls of this process", read: path)
        case nil: return .unknown(id, "filters of calls cannot be read", read: path)
        default:
            return .warn(
                id,
                "a filter may refuse system calls of this process (seccomp)",
                read: path,
                remedy: "docker: --security-opt seccomp=unconfined, if a call fails with EPERM"
            )
        }
    }

    private var taint: Finding {
        let id = "host/taint"
        let path = "/proc/sys/kernel/tainted"
        guard let value = file(path).text else {
            return .unknown(id, "the taint of the kernel cannot be read", read: path)
        }
        return .ok(
            id,
            value == "0" ? "the kernel is not tainted" : "taint bits \(value)",
            read: path
        )
    }

    private var kvm: Finding {
        let path = "/dev/kvm"
        return .ok(
            "host/kvm",
            tree.exists(path) ? "guests can use KVM" : "no KVM: guests on this host are emulated",
            read: path
        )
    }
}
